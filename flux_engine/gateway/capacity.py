"""What the queue says of its workers, asked at most every two seconds."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from flux_engine.gateway.task import WaitingFor
from flux_engine.queues.job_queue import JobQueue, QueueAway, QueueHealth, QueueRefused

FRESH_S: Final = 2.0
BUSY: Final = ("ready", "idle", "running")


class Capacity:
    """For one event loop."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._health: QueueHealth | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def health(self) -> QueueHealth | None:
        """None where the queue does not answer."""
        async with self._asking:
            if time.monotonic() - self._asked_at > FRESH_S:
                try:
                    self._health = await self._queue.health()
                except (QueueAway, QueueRefused):
                    self._health = None
                self._asked_at = time.monotonic()
        return self._health

    async def waiting_for(self) -> WaitingFor | None:
        """Why a task that the queue holds does not run yet."""
        health = await self.health()
        if health is None:
            return None
        workers = health.workers
        if any(workers.get(state, 0) > 0 for state in BUSY):
            return "busy"
        if workers.get("initializing", 0) > 0:
            return "worker_starting"
        return "throttled" if workers.get("throttled", 0) > 0 else "no_workers"

    def workers(self) -> int:
        """How many were there when it was last asked, those that start included."""
        if self._health is None:
            return 0
        held = self._health.workers
        return sum(held.get(state, 0) for state in ("idle", "running", "initializing"))
