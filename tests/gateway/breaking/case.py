"""One user's requests to a gateway one of whose calls fails, and what has to hold once all is quiet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flux_engine.cache.redis_link import CacheAway
from flux_engine.gateway.limits import manager as limits
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks import endings
from tests.gateway.breaking.calls import Calls, Fault
from tests.gateway.world import World, failure
from tests.waiting import until

NOTHING, UNSURE = "nothing was done", "may have begun"


@dataclass(slots=True)
class Case:
    """A user of her own, whose pictures are no other's."""

    gw: World
    calls: Calls
    fault: Fault
    user: str
    seed: int
    key: dict[str, str]
    folder: Path  # of the store
    left_before: set[str]  # files that a case before this one has left there

    def sun(self, **more: Any) -> dict[str, Any]:
        return {"prompt": "a red sun", "width": 64, "height": 64, "steps": 2, "seed": self.seed} | more

    async def ask(self, method: str, path: str, *, key: str | None = None, **more: Any) -> httpx2.Response:
        headers = self.key | ({"Idempotency-Key": key} if key is not None else {}) | more.pop("headers", {})
        return await self.gw.client.request(method, path, headers=headers, **more)

    async def until_well(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """The answer to a request that is sent again as long as it is told to."""
        answers: list[httpx2.Response] = []

        async def is_well() -> bool:
            answers.append(await self.ask(method, path, **dict(more)))
            return answers[-1].status_code != 503

        await until(is_well)
        return answers[-1]

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Calls of requests fail in here."""
        with self.calls.of("request", self.fault):
            yield

    async def broken_ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        with self.broken():
            answer = await self.ask(method, path, **more)
        assert answer.status_code in (502, 503) or answer.status_code < 500, answer.text
        return answer

    async def tasks(self) -> list[Task]:
        ledger = self.gw.gateway.ledger
        return await ledger.many([i for i, _ in await ledger.newest(self.user, before=None, count=50)])

    async def quiet(self) -> list[Task]:
        """The user's tasks once all has followed from their ends."""
        found: list[Task] = []

        async def is_quiet() -> bool:
            found[:] = await self.tasks()
            return all(task.is_settled for task in found)

        await until(is_quiet)
        return found

    def jobs(self) -> list[Any]:
        held = []
        for job in self.gw.platform.endpoint.queue.jobs:
            asked: Any = job.payload["input"]
            if asked["seed"] // 1000 == self.seed // 1000:
                held.append(job)
        return held

    async def balance(self, *, most_jobs: int | None = None) -> list[Task]:
        """The user's tasks, once all is quiet: each was made, charged and let go of once, and none has left a file."""
        tasks = await self.quiet()
        gateway = self.gw.gateway
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(limits, "LEFT_OPEN_S", 0.0)
            patched.setattr(endings, "LOOSE_S", 0.0)
            await self.wait_until_reachable()
            await gateway.endings.check_reservations()
            await gateway.endings.check_parts()
        used = sum(math.ceil(round((t.work_used or 0) * 1000, 6)) for t in tasks if t.status == "completed") / 1000
        (_, day) = await gateway.limits.usage(self.user)
        assert day.policy.quota - day.remaining == pytest.approx(used, abs=1e-6), "the charge"
        counts = await gateway.line.counts(self.user)
        assert (counts.waiting_of_user, counts.in_flight_of_user) == (0, 0), "places in the line"
        due = [await gateway.redis.zscore(gateway.ledger.keys.due, task.id) for task in tasks]
        assert due == [None] * len(tasks), "still due"
        made = [task for task in tasks if not task.cached and task.status != "cancelled"]
        assert len(self.jobs()) <= (len(made) if most_jobs is None else most_jobs), "jobs"
        await self._files()
        return tasks

    async def wait_until_reachable(self) -> None:
        """Until the gateway asks its Redis again."""

        async def is_reachable() -> bool:
            try:
                await self.gw.gateway.line.counts()
            except CacheAway:
                return False
            return True

        await until(is_reachable)

    async def _files(self) -> None:
        gateway = self.gw.gateway
        known: set[str] = set()
        async for key in gateway.redis.scan_iter(gateway.ledger.keys.task("*"), count=1000):
            task = await gateway.ledger.get(key.rpartition(":")[2])
            if task is not None and not task.is_purged:
                known |= {file["key"] for file in task.files}
                known |= {part["key"] for part in (await gateway.ledger.input(task.id) or {}).get("apart", ())}
        there = {path.name for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
        left = there - {key.rpartition("/")[2] for key in known} - self.left_before
        self.left_before |= left
        assert left == set(), "files of no task"


async def work(gw: World) -> None:
    """A worker for all. What has `hold` in its prompt is not finished, with `once` only when it comes again; `fail`
    fails."""
    held: set[int] = set()
    while True:
        job = await gw.hand.take(within_s=math.inf)
        asked: Any = job.payload["input"]
        prompt, seed = str(asked["prompt"]), int(asked["seed"])
        if "hold" in prompt and ("once" not in prompt or seed not in held):
            held.add(seed)
            continue
        gw.hand.finish(job, error=failure("internal") if "fail" in prompt else None)
