"""The watchdog: sees to it that every task that has not ended is looked at until it has.

All replicas share one set of tasks by when to look at them next, each look under a lease, at the rate that the queue
takes. What a look finds, and what follows, stands in look.py. Nothing stays `processing` for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import StorageFailed
from flux_engine.gateway.seams import Line
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.look import Look
from flux_engine.gateway.tasks.pace import Pace
from flux_engine.queues.job_queue import QueueAway, QueueRefused, Rates

RESERVATIONS_EVERY_S: Final = 10.0

log = logging.getLogger(__name__)


class Sweep:
    """`run` until it is cancelled; `nudge` for a look at once."""

    def __init__(self, ledger: Ledger, look: Look, *, line: Line, endings: Endings, rates: Rates, pace: Pace) -> None:
        self.look: Final = look
        self._ledger = ledger
        self._line = line
        self._endings = endings
        self._rates = rates
        self._pace = pace
        self._wake = asyncio.Event()
        self._looking: dict[str, asyncio.Task[None]] = {}  # by task
        self._again: set[str] = set()  # due once more while they are looked at
        self._in_flight = 0
        self._next_check = 0.0

    async def nudge(self, task_id: str) -> None:
        """Somebody heard that `task_id` has changed: look at once."""
        await self._ledger.agenda.look_at(task_id, time.time())
        self._wake.set()

    async def run(self) -> None:
        is_away = False
        try:
            while True:
                self._wake.clear()
                try:
                    await self._look_at_due()
                    await self._check_reservations_in_time()
                    is_away = False
                except (RedisError, CacheAway, OSError) as error:
                    if not is_away:
                        log.warning("sweep interrupted", extra={"detail": type(error).__name__})
                    is_away = True
                try:
                    async with asyncio.timeout(self._pace.tick):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            looks = list(self._looking.values())
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def hear(self, task_id: str, update: Mapping[str, Any] | None) -> None:
        """A worker's word through Redis: its progress, or, with None, that it is done."""
        task = await self._ledger.get(task_id)
        if task is None or task.is_final:
            return
        if update is not None:
            await self.look.advance(task, update, is_told=True)
        else:
            await self._ledger.agenda.set_ended(task_id, look_at=time.time() + self._pace.ending / 2)
            self._wake.set()

    async def _check_reservations_in_time(self) -> None:
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + RESERVATIONS_EVERY_S
            await self._endings.check_reservations()

    async def _look_at_due(self) -> None:
        while True:
            free = self._pace.at_once - len(self._looking)
            if free <= 0:
                await asyncio.wait(self._looking.values(), return_when=asyncio.FIRST_COMPLETED)
                continue
            rate = self._rates.status
            due = await self._ledger.agenda.claim_due(at_most=free, rate=rate, burst=rate)
            self._in_flight = await self._line.in_flight() if due else self._in_flight
            for task_id in due:
                self._begin(task_id)
            if len(due) < free:
                return

    def _begin(self, task_id: str) -> None:
        """One look at a time at each task: a store or a queue that does not answer holds a look longer than its lease,
        and the looks at one task would be all that there is room for."""
        if task_id in self._looking:
            self._again.add(task_id)
            return
        look = self._looking[task_id] = asyncio.create_task(self._guarded_look(task_id), name=f"look at {task_id}")
        look.add_done_callback(lambda _: self._looked_at(task_id))

    def _looked_at(self, task_id: str) -> None:
        self._looking.pop(task_id, None)
        self._again.discard(task_id)

    async def _guarded_look(self, task_id: str) -> None:
        """A look whose failure costs nothing: the lease runs out, and the task is looked at again."""
        try:
            await self.look.at(task_id, in_flight=self._in_flight)
        except (RedisError, CacheAway, QueueAway, QueueRefused, StorageFailed, OSError) as error:
            log.warning("task not looked at", extra={"job_id": task_id, "detail": f"{type(error).__name__}: {error}"})
        except Exception:
            log.exception("task not looked at", extra={"job_id": task_id, "code": "internal"})
        if task_id in self._again:
            with suppress(RedisError):  # else its lease runs out
                await self.nudge(task_id)
