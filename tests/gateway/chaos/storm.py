"""One run: tasks of many users through a system whose processes are killed at random moments.

outcome = await Storm(folder, tasks=24, kills=4, seed=1).run()
outcome.faults == []
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Final

import httpx2

from flux_engine.cache.redis_link import CacheAway, RedisLink, RemoteServer
from flux_engine.gateway.limits.manager import LEFT_OPEN_S, LimitsManager, LimitTerms
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from tests.gateway.chaos.client import Client
from tests.gateway.chaos.pictures import pixels, undisturbed
from tests.gateway.chaos.system import VICTIMS, Queue, System, Victim
from tests.waiting import until

USERS: Final = 10
BACK_AFTER_S: Final = (0.1, 0.8)
DAY: Final = 1_000_000
RECOUNT_S: Final = LEFT_OPEN_S + 60
RESULT_MADE: Final = re.compile(r'\{"time".*"event": "result made".*\}')
STORED: Final = re.compile(r'\[(?P<at>[^\]]+)\] "PUT /\S+/(?P<sha256>[0-9a-f]{64})\.png HTTP/1\.1" 200')
STORED_WITHIN_S: Final = 1.0  # the bucket's log counts whole seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """`made` says how often the pictures of a task were made: more than once where a kill came before the bucket had
    the picture. `made_after_stored` are the tasks whose picture was made again although the bucket had it, which is a
    fault."""

    clients: list[Client]
    kills: Counter[Victim]
    faults: list[str]
    seconds: float
    made: Counter[int]
    made_after_stored: list[int]

    @property
    def reconnections(self) -> int:
        return sum(client.connections - 1 for client in self.clients)


class Storm:
    """See the module."""

    def __init__(
        self,
        folder: Path,
        *,
        tasks: int,
        kills: int,
        seed: int,
        queue: Queue = "runpod",
        workers: int = 1,
        every_s: tuple[float, float] = (0.3, 2.0),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._kills = kills
        self._random = random.Random(seed)
        self._queue: Queue = queue
        self._every_s = every_s
        self._say = say
        self._system = System(folder, queue=queue, workers=workers, chance=self._random)
        self._killed: Counter[Victim] = Counter()
        self._done = 0

    async def run(self) -> Outcome:
        began = time.monotonic()
        bounds = httpx2.Limits(max_connections=2000)
        async with self._system, httpx2.AsyncClient(timeout=20, trust_env=False, limits=bounds) as http:
            clients = await self._clients()
            await self._system.start()
            self._say(f"ready after {time.monotonic() - began:.1f} s")
            killing = asyncio.create_task(self._kill_all())
            await asyncio.gather(*(self._run(client, http) for client in clients))
            await killing
            faults = [fault for client in clients for fault in client.faults()]
            faults += await self._recount(http, clients)
        made, again = self._made(), self._made_after_stored(clients)
        faults += [f"task {number} was made again after its picture was stored" for number in again]
        faults += await self._compared(clients)
        counts = Counter(len(made[client.task_id]) for client in clients)
        return Outcome(clients, self._killed, faults, time.monotonic() - began, counts, again)

    async def _run(self, client: Client, http: httpx2.AsyncClient) -> None:
        await client.run(http)
        self._done += 1
        if self._done % 50 == 0:
            self._say(f"{self._done} tasks done, {sum(self._killed.values())} kills")

    async def _kill_all(self) -> None:
        for _ in range(self._kills):
            await asyncio.sleep(self._random.uniform(*self._every_s))
            victim = self._random.choice(VICTIMS[self._queue])
            await self._system.kill(victim, back_after_s=self._random.uniform(*BACK_AFTER_S))
            self._killed[victim] += 1

    async def _clients(self) -> list[Client]:
        link = RedisLink(RemoteServer(self._system.redis.url))
        store = KeyStore(link, root=self._system.settings().redis_root)
        keys: list[tuple[str, str]] = []
        for number in range(min(USERS, self._tasks)):
            key, record = mint(f"user-{number}", frozenset(("generate", "read")), expires_at=None)
            await store.add(record)
            keys.append((record.user, key.get_secret_value()))
        await link.close()
        return [Client(n, *keys[n % len(keys)], self._system.url, _wish(n)) for n in range(self._tasks)]

    # --------------------------------------------------------------------------------- at the end

    async def _recount(self, http: httpx2.AsyncClient, clients: list[Client]) -> list[str]:
        """One task a key, and every user charged for exactly what was made."""
        link = RedisLink(RemoteServer(self._system.redis.url), retry_after_s=0)
        limits = LimitsManager(link, LimitTerms(work_per_day=DAY), root=self._system.settings().redis_root)
        await until(lambda: _answers(link))  # where Redis is away, usage is that of this process alone
        faults = []
        for user in sorted({client.user for client in clients}):
            own = [client for client in clients if client.user == user]
            listed = await self._listed(http, own[0])
            if sorted(task["task_id"] for task in listed) != sorted(client.task_id for client in own):
                faults.append(f"{user} has {len(listed)} tasks for {len(own)} keys")
            spent = round(sum(round(task.get("work_used", 0), 3) for task in listed), 3)
            charged = await self._charged(limits, user, spent)
            if charged != spent:
                faults.append(f"{user} was charged {charged} for {spent}")
        await limits.close()
        await link.close()
        return faults

    async def _listed(self, http: httpx2.AsyncClient, client: Client) -> list[dict[str, Any]]:
        answer = await http.get(f"{self._system.url()}/tasks?limit=100", headers=client.headers)
        tasks: list[dict[str, Any]] = answer.raise_for_status().json()["tasks"]
        return tasks

    async def _charged(self, limits: LimitsManager, user: str, expected: float) -> float:
        """The user's charge, once it is `expected`, or as it stands when the gateways have had time to close what
        was left open."""

        async def charged() -> float:
            day = next(standing for standing in await limits.usage(user) if standing.policy.name == "work-day")
            return round(DAY - day.remaining, 3)

        async def is_expected() -> bool:
            return await charged() == expected

        with suppress(TimeoutError):
            await until(is_expected, patience_s=RECOUNT_S)
        return await charged()

    def _made(self) -> Mapping[str, list[float]]:
        """When the making of each task's picture ended, as the workers say."""
        made = defaultdict[str, list[float]](list)
        for found in RESULT_MADE.findall(self._system.worker_log()):
            line = json.loads(found)
            made[line["job_id"]].append(datetime.fromisoformat(line["time"]).timestamp())
        return made

    def _made_after_stored(self, clients: list[Client]) -> list[int]:
        """The tasks whose picture was made once more when the bucket had it, by the bucket's own log: a worker that is
        killed may take its last lines along."""
        stored: dict[str, float] = {}
        for found in STORED.finditer(self._system.bucket_log()):
            at = datetime.strptime(found["at"], "%d/%b/%Y %H:%M:%S").astimezone()  # in local time
            stored.setdefault(found["sha256"], at.timestamp() + STORED_WITHIN_S)
        made = self._made()
        first = {client.number: stored.get(hashlib.sha256(client.picture).hexdigest(), inf) for client in clients}
        return [c.number for c in clients if any(at > first[c.number] for at in made[c.task_id])]

    async def _compared(self, clients: list[Client]) -> list[str]:
        """Every picture, with what an undisturbed worker makes."""
        expected = undisturbed((client.wish for client in clients), self._folder / "undisturbed")
        right = [data async for data in expected]
        pairs = [(client, data) for client, data in zip(clients, right, strict=True) if client.picture]
        return [f"task {client.number} has another picture" for client, data in pairs if pixels(client.picture) != data]


def _wish(number: int) -> dict[str, Any]:
    return {"prompt": f"a red sun {number}", "seed": number, "width": 64, "height": 64, "num_inference_steps": 1}


async def _answers(link: RedisLink) -> bool:
    try:
        await link.get("anything")
    except CacheAway:
        return False
    return True
