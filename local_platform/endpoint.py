"""One endpoint while it runs: the queue, a clock, its workers, and everyone who waits for a change.

Both sides of the HTTP interface use it. It knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from local_platform.job import Job, JsonObject, Limits
from local_platform.queue import JobQueue

Found = TypeVar("Found")

SEEN_S: Final = 10.0  # a worker that was silent for longer is not counted by /health
PATIENCE_S: Final = 300.0  # no claim about speed: how long a test hangs before it says so


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker as its requests show it. `is_asking`: its take is held open. `unhealthy`: why a fitness check failed."""

    id: str
    seen_at: float
    has_asked: bool = False
    is_asking: bool = False
    is_to_stop: bool = False
    unhealthy: str | None = None


class Endpoint:
    """The state of one endpoint. Not thread-safe: all of it happens on one event loop."""

    def __init__(self, endpoint_id: str, *, limits: Limits | None = None, id_seed: int | None = None) -> None:
        self.id: Final = endpoint_id
        self.queue: Final = JobQueue(limits)
        self._workers: dict[str, SeenWorker] = {}
        self._ids = random.Random(id_seed)
        self._changed = asyncio.Event()

    @staticmethod
    def now() -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def new_job_id(self, *, is_sync: bool) -> str:
        """An id in RunPod's form; with an `id_seed` the n-th id is the same in every run."""
        identity = uuid.UUID(int=self._ids.getrandbits(128), version=4)
        return f"sync-{identity}-u1" if is_sync else f"{identity}-u1"

    # --------------------------------------------------------------------------------------- jobs

    def submit(
        self,
        payload: JsonObject,
        *,
        is_sync: bool = False,
        execution_timeout_s: float | None = None,
        ttl_s: float | None = None,
    ) -> Job:
        """Queue a job; `payload` holds `input`, and what else the worker gets."""
        job = self.queue.submit(
            self.new_job_id(is_sync=is_sync),
            payload,
            now=self.now(),
            is_sync=is_sync,
            execution_timeout_s=execution_timeout_s,
            ttl_s=ttl_s,
        )
        self.changed()
        return job

    def cancel(self, job_id: str) -> Job:
        """Take a job back and tell its worker."""
        job = self.queue.cancel(job_id, now=self.now())
        self.changed()
        return job

    # ------------------------------------------------------------------------------------ waiting

    def changed(self) -> None:
        """Wake everyone who waits."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def wait_for(self, attempt: Callable[[], Found | None], *, timeout_s: float) -> Found | None:
        """The first result of `attempt` that is not None, tried at every change; None after `timeout_s`."""
        deadline = self.now() + timeout_s
        while (found := attempt()) is None:
            left_s = deadline - self.now()
            if left_s <= 0:
                return None
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return attempt()
        return found

    async def until(self, claim: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until `claim` holds. Raises TimeoutError."""
        if await self.wait_for(lambda: claim() or None, timeout_s=timeout_s) is None:
            raise TimeoutError(f"not within {timeout_s:g} s")

    async def finished(self, job_id: str, *, timeout_s: float = PATIENCE_S) -> Job:
        """The job once it is final, or as it stands after `timeout_s`."""
        return await self.wait_for(lambda: self._if_final(job_id), timeout_s=timeout_s) or self.queue[job_id]

    def _if_final(self, job_id: str) -> Job | None:
        job = self.queue[job_id]
        return job if job.status.is_final else None

    # ------------------------------------------------------------------------------------ workers

    def saw(self, worker: str, *, has_asked: bool = False, unhealthy: str | None = None) -> None:
        """Note a request of `worker`; `has_asked`: for a job."""
        known = self._workers.get(worker, SeenWorker(worker, self.now()))
        self._workers[worker] = replace(
            known,
            seen_at=self.now(),
            has_asked=known.has_asked or has_asked,
            unhealthy=unhealthy or known.unhealthy,
        )

    def asks(self, worker: str, *, is_asking: bool) -> None:
        """The worker's take begins to be held open, or has ended."""
        self.saw(worker, has_asked=True)
        self._workers[worker] = replace(self._workers[worker], is_asking=is_asking)
        self.changed()

    def stop_worker(self, worker: str) -> None:
        """The worker asked to be replaced (`stopPod`); it gets no further job."""
        self.saw(worker)
        self._workers[worker] = replace(self._workers[worker], is_to_stop=True)
        self.changed()

    def worker(self, worker: str) -> SeenWorker | None:
        return self._workers.get(worker)

    def health(self) -> dict[str, dict[str, int]]:
        """What `/health` answers."""
        recent = [seen for seen in self._workers.values() if self.now() - seen.seen_at < SEEN_S]
        fit = [seen for seen in recent if seen.unhealthy is None]
        ready = [seen for seen in fit if seen.has_asked]
        running = sum(1 for seen in ready if self.queue.held_by(seen.id))
        return {
            "jobs": self.queue.counts(),
            "workers": {
                "idle": len(ready) - running,
                "initializing": len(fit) - len(ready),
                "ready": len(ready) - running,
                "running": running,
                "throttled": 0,
                "unhealthy": len(recent) - len(fit),
            },
        }
