"""Workers of a platform: the real handler through the real SDK."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from local_platform.job import Status
from local_platform.processes import REPOSITORY, OnLine, Pool, WorkerDied, WorkerProcess, tail
from local_platform.server import Platform

HANDLER: Final = (sys.executable, "-u", "handler.py")
WATCH_S: Final = 0.1


class WorkerPool(Pool):
    """The workers of a platform; leaving it ends them all.

    `environment` is added to what RunPod sets and to little else: a worker sees nothing of the caller's surroundings.
    With `stop_grace_s` the workers are stopped as RunPod does it, after a job's time-out and where one asked to be
    replaced: SIGTERM, and after that many seconds SIGKILL. Without, they are left as they are.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        command: Sequence[str] = HANDLER,
        directory: Path = REPOSITORY,
        environment: Mapping[str, str] | None = None,
        on_line: OnLine | None = None,
        stop_grace_s: float | None = None,
    ) -> None:
        super().__init__(command=command, directory=directory, on_line=on_line)
        self._platform = platform
        self._stop_grace_s = stop_grace_s
        self._stopper: asyncio.Task[None] | None = None
        self._environment = dict(environment or {})

    async def __aenter__(self) -> Self:
        if self._stop_grace_s is not None:
            self._stopper = asyncio.create_task(self._stop_workers(self._stop_grace_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stopper is not None:
            self._stopper.cancel()
            await asyncio.gather(self._stopper, return_exceptions=True)
        await super().__aexit__()

    def outgoing(self) -> list[WorkerProcess]:
        """The workers that have ended or that the platform was asked to replace."""
        seen = [(worker, self._platform.endpoint.worker(worker.id)) for worker in self.workers]
        return [w for w, known in seen if w.returncode is not None or (known is not None and known.is_to_stop)]

    async def _stop_workers(self, grace_s: float) -> None:
        async with asyncio.TaskGroup() as stops:
            stopped: set[str] = set()
            while True:
                for worker in [w for w in self.workers if w.id not in stopped and self._is_to_stop(w)]:
                    stopped.add(worker.id)
                    stops.create_task(worker.stop(grace_s=grace_s))
                await asyncio.sleep(WATCH_S)

    def _is_to_stop(self, worker: WorkerProcess) -> bool:
        seen = self._platform.endpoint.worker(worker.id)
        jobs = self._platform.endpoint.queue.jobs
        has_overrun = any(job.worker == worker.id and job.status is Status.TIMED_OUT for job in jobs)
        return has_overrun or (seen is not None and seen.is_to_stop)

    def _variables(self, worker_id: str) -> Mapping[str, str]:
        return {"RUNPOD_LOG_LEVEL": "INFO"} | self._platform.worker_environment(worker_id) | self._environment

    async def _until_there(self, worker: WorkerProcess, timeout_s: float) -> None:
        state = await self._platform.endpoint.wait_for(lambda: self._state(worker), timeout_s=timeout_s)
        if state == "ready":
            return
        if state is None:
            raise TimeoutError(f"{worker.id} asked for no job within {timeout_s:g} s\n{tail(worker)}")
        await worker.wait()
        raise WorkerDied(worker, "before it asked for a job")

    def _state(self, worker: WorkerProcess) -> str | None:
        seen = self._platform.endpoint.worker(worker.id)
        if seen is not None and seen.has_asked:
            return "ready"
        return "ended" if worker.returncode is not None else None
