"""The watchdog: sees to it that every task that has not ended is looked at until it has.

All replicas share one set of tasks by when to look at them next, each look under a lease, at the rate that the queue
takes. What a look finds, and what follows, stands in look.py. Nothing stays `processing` for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import RedisError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import StorageFailed
from flux_engine.gateway.seams import Line
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.ledger.agenda import Due
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
        self._again: dict[str, Due] = {}  # due once more while they are looked at
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
            self._looking.clear()  # of looks that had not begun
            self._again.clear()

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

    async def catch_up(self) -> None:
        """What workers said may have been missed: look at what rests while they tell, as if they did not."""
        await self._ledger.agenda.wake_all(time.time() + self._pace.between(self._in_flight))

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
            for one in due:
                self._begin(one)
            if len(due) < free:
                return

    def _begin(self, due: Due) -> None:
        """One look at a time at each task: a store or a queue that does not answer holds a look longer than its lease,
        and the looks at one task would be all that there is room for."""
        if due.task_id in self._looking:
            self._again[due.task_id] = due
        else:
            self._looking[due.task_id] = asyncio.create_task(self._looks(due), name=f"look at {due.task_id}")

    async def _looks(self, due: Due) -> None:
        """One look, and another for each time that the task became due meanwhile; in one step with the last, what is
        due from then on begins anew."""
        again: Due | None = due
        try:
            while again is not None:
                await self._guarded_look(*again)
                again = self._again.pop(due.task_id, None)
        finally:
            del self._looking[due.task_id]

    async def _guarded_look(self, task_id: str, leased_until: float) -> None:
        """A look whose failure costs nothing: the lease runs out, and the task is looked at again."""
        try:
            await self.look.at(task_id, leased_until=leased_until, in_flight=self._in_flight)
        except (RedisError, CacheAway, QueueAway, QueueRefused, StorageFailed, OSError) as error:
            log.warning("task not looked at", extra={"job_id": task_id, "detail": f"{type(error).__name__}: {error}"})
        except Exception:
            log.exception("task not looked at", extra={"job_id": task_id, "code": "internal"})
