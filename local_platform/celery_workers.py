"""Celery workers in processes of their own, on one Redis: the same worker, fed by the other queue."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import aiohttp

from local_platform.processes import OnLine, Pool, WorkerDied, WorkerProcess, tail

COMMAND: Final = (
    *(sys.executable, "-m", "celery", "-A", "flux_engine.queues.celery_worker", "worker"),
    *("--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"),
)
LOOK_S: Final = 0.1


class CeleryPool(Pool):
    """Workers of the broker that `environment` names; leaving the pool ends them all.

    Each answers /healthz on a port of its own, which is how the pool sees that it is there.
    """

    def __init__(self, *, environment: Mapping[str, str], on_line: OnLine | None = None) -> None:
        super().__init__(command=COMMAND, on_line=on_line)
        self._environment = dict(environment)
        self._ports: dict[str, int] = {}
        self._held: list[socket.socket] = []

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        for port in self._held:
            port.close()

    def url(self, worker: WorkerProcess) -> str:
        """Where `worker` answers probes."""
        return f"http://127.0.0.1:{self._ports[worker.id]}"

    def _variables(self, worker_id: str) -> Mapping[str, str]:
        self._held.append(_kept_port())
        self._ports[worker_id] = self._held[-1].getsockname()[1]
        return {**self._environment, "CELERY_HEALTH_PORT": str(self._ports[worker_id])}

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
        raise WorkerDied(worker, "at its start")


def _kept_port() -> socket.socket:
    """A free port, bound so that nobody else is given it; who sets SO_REUSEADDR may listen at it all the same."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept
