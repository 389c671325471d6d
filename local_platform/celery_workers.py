"""Celery workers in processes of their own, on one Redis: the same worker, fed by the other queue."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self

import aiohttp

from local_platform.workers import INHERITED, REPOSITORY, START_TIMEOUT_S, OnLine, WorkerDied, WorkerProcess, tail

COMMAND: Final = (
    *(sys.executable, "-m", "celery", "-A", "flux_engine.queues.celery_worker", "worker"),
    *("--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"),
)
LOOK_S: Final = 0.1


class CeleryPool:
    """Workers of the broker that `environment` names; leaving the pool ends them all.

    Each answers /healthz on a port of its own, which is how the pool sees that it is there.
    """

    def __init__(self, *, environment: Mapping[str, str], on_line: OnLine | None = None) -> None:
        self._environment = dict(environment)
        self._on_line = on_line
        self._home = tempfile.TemporaryDirectory(prefix="worker-home-")
        self._started = 0
        self._ports: dict[str, int] = {}
        self.workers: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.workers))
        self.workers.clear()
        self._home.cleanup()

    def url(self, worker: WorkerProcess) -> str:
        """Where `worker` answers probes."""
        return f"http://127.0.0.1:{self._ports[worker.id]}"

    async def start(self, count: int = 1, *, timeout_s: float = START_TIMEOUT_S) -> list[WorkerProcess]:
        """Start `count` workers and wait until each answers. Raises WorkerDied or TimeoutError."""
        fresh = [await self._spawn() for _ in range(count)]
        await asyncio.gather(*(self._until_there(worker, timeout_s) for worker in fresh))
        return fresh

    async def replace(self, worker: WorkerProcess, *, timeout_s: float = START_TIMEOUT_S) -> WorkerProcess:
        """Kill `worker` and start another."""
        await worker.kill()
        self.workers.remove(worker)
        return (await self.start(timeout_s=timeout_s))[0]

    def outgoing(self) -> list[WorkerProcess]:
        """The workers that have ended."""
        return [worker for worker in self.workers if worker.returncode is not None]

    async def _spawn(self) -> WorkerProcess:
        self._started += 1
        worker_id = f"worker-{self._started}"
        self._ports[worker_id] = _free_port()
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        worker = await WorkerProcess.start(
            worker_id,
            command=COMMAND,
            environment=inherited
            | {"HOME": self._home.name, "PYTHONUNBUFFERED": "1"}
            | self._environment
            | {"CELERY_HEALTH_PORT": str(self._ports[worker_id])},
            directory=REPOSITORY,
            on_line=self._on_line,
        )
        self.workers.append(worker)
        return worker

    async def _until_there(self, worker: WorkerProcess, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
                while worker.returncode is None:
                    with suppress(aiohttp.ClientError):
                        async with session.get(f"{self.url(worker)}/healthz"):
                            return
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"{worker.id} did not answer within {timeout_s:g} s\n{tail(worker)}") from None
        await worker.wait()
        raise WorkerDied(f"{worker.id} ended with status {worker.returncode} at its start\n{tail(worker)}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
        return number
