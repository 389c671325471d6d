"""The watchdog: looks at every task that has not ended until it has, and does what follows from its end.

All replicas share one set of tasks by when to look at them next, each look under a lease, at the rate that the queue
takes. What a look finds, in this order: the worker's own word in the shared Redis, then the queue's status. A task that
the queue has forgotten is submitted again under the same id, a bounded number of times; one that takes too long fails.
Nothing stays `processing` for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import RedisError

from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import FluxError, StorageFailed
from flux_engine.gateway.capacity import Capacity
from flux_engine.gateway.seams import Line, Webhooks
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.task import Task, TaskError
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.hits import Hits
from flux_engine.gateway.tasks.kept import is_whole
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.gateway.tasks.pace import Pace
from flux_engine.gateway.tasks.reports import completed, failed, found_again, lost, news_of, refused
from flux_engine.gateway.tasks.results import Results
from flux_engine.gateway.tasks.submit import Dispatcher
from flux_engine.queues.job_queue import JobQueue, QueueAway, QueueRefused, Report

RESERVATIONS_EVERY_S: Final = 10.0
ORPHANED_S: Final = 30.0  # until a task that nobody waits for is cancelled
LOG_AWAY: Final = "sweep interrupted"
log = logging.getLogger(__name__)


class Sweep:
    """`run` until it is cancelled; `nudge` for a look at once."""

    def __init__(
        self,
        ledger: Ledger,
        queue: JobQueue,
        *,
        dispatcher: Dispatcher,
        endings: Endings,
        cache: CacheManager,
        results: Results,
        hits: Hits,
        line: Line,
        webhooks: Webhooks,
        settings: GatewaySettings,
        capacity: Capacity,
        pace: Pace,
    ) -> None:
        self.dispatcher: Final = dispatcher
        self.endings: Final = endings
        self._pace = pace
        self._ledger = ledger
        self._queue = queue
        self._cache = cache
        self._results = results
        self._hits = hits
        self._line = line
        self._webhooks = webhooks
        self._settings = settings
        self._capacity = capacity
        self._wake = asyncio.Event()
        self._looking: set[asyncio.Task[None]] = set()
        self._due = 0
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
                        log.warning(LOG_AWAY, extra={"detail": type(error).__name__})
                    is_away = True
                try:
                    async with asyncio.timeout(self._pace.tick):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for look in tuple(self._looking):
                look.cancel()
            await asyncio.gather(*self._looking, return_exceptions=True)

    async def cancel(self, task: Task) -> Task:
        """Take `task` back: it is cancelled at once where no worker has begun with it, and else as soon as its worker
        has stopped."""
        if not await self._ledger.wish_cancelled(task):
            return await self._ledger.get(task.id) or task
        task = await self._ledger.get(task.id) or task
        if task.ticket is None and not await self._ledger.agenda.begin_submit(task.id):
            return task  # on its way to the queue: whoever submits it sees the wish
        is_queued = task.status == "queued"
        if task.ticket is not None:
            try:
                report = await self._queue.cancel(task.ticket)
            except (QueueAway, QueueRefused) as error:
                log.warning("task not cancelled yet", extra={"job_id": task.id, "detail": str(error)})
                return task  # the sweep goes on trying
            if report.state not in ("cancelled", "unknown") or not is_queued:
                return task
        return await self.endings.finish(task, Ending(status="cancelled"))

    async def look(self, task_id: str) -> None:
        """One look at one task."""
        task = await self._ledger.get(task_id)
        if task is None:
            await self._ledger.agenda.look_at(task_id, time.time())  # which drops what is not there
        elif task.is_final:
            await self.endings.settle(task)
        elif self._is_overdue(task):
            await self._give_up(task)
        elif task.orphaned_at is not None and not task.cancelling and time.time() - task.orphaned_at > ORPHANED_S:
            await self.cancel(task)
        elif task.ticket is None:
            await self._look_before_queue(task)
        else:
            await self._look_in_queue(task, task.ticket)

    async def hear(self, task_id: str, update: Mapping[str, Any] | None) -> None:
        """A worker's word through Redis: its progress, or, with None, that it is done."""
        task = await self._ledger.get(task_id)
        if task is None or task.is_final:
            return
        if update is not None:
            await self._advance(task, update, is_told=True)
        else:
            await self._ledger.agenda.set_ended(task_id, look_at=time.time() + self._pace.ending / 2)
            self._wake.set()

    # ------------------------------------------------------------------------------------- looking

    async def _check_reservations_in_time(self) -> None:
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + RESERVATIONS_EVERY_S
            await self.endings.check_reservations()

    async def _look_at_due(self) -> None:
        while True:
            free = self._pace.at_once - len(self._looking)
            if free <= 0:
                await asyncio.wait(self._looking, return_when=asyncio.FIRST_COMPLETED)
                continue
            rate = self._queue.rates.status
            due = await self._ledger.agenda.claim_due(at_most=free, rate=rate, burst=rate)
            self._due = await self._ledger.agenda.count_due() if due else self._due
            for task_id in due:
                look = asyncio.create_task(self._guarded_look(task_id), name=f"look at {task_id}")
                self._looking.add(look)
                look.add_done_callback(self._looking.discard)
            if len(due) < free:
                return

    async def _guarded_look(self, task_id: str) -> None:
        """A look whose failure costs nothing: the lease runs out, and the task is looked at again."""
        try:
            await self.look(task_id)
        except (RedisError, CacheAway, QueueAway, QueueRefused, StorageFailed, OSError) as error:
            log.warning("task not looked at", extra={"job_id": task_id, "detail": f"{type(error).__name__}: {error}"})
        except Exception:
            log.exception("task not looked at", extra={"job_id": task_id, "code": "internal"})

    def _is_overdue(self, task: Task) -> bool:
        now = time.time()
        if task.deadline_at is not None and now > task.deadline_at:
            return True
        return task.submitted_at is not None and now - task.submitted_at > self._settings.task_timeout_seconds

    async def _give_up(self, task: Task) -> None:
        if task.ticket is not None:
            await self._cancel_in_queue(task.ticket)
        is_deadline = task.deadline_at is not None and time.time() > task.deadline_at
        reason = "`deadline_seconds` passed" if is_deadline else "no worker finished this task in time; send it again"
        error = TaskError(code="internal", message=reason, retryable=not is_deadline)
        await self.endings.finish(task, Ending(status="cancelled" if task.cancelling else "failed", error=error))

    async def _look_before_queue(self, task: Task) -> None:
        if task.cancelling:
            await self.endings.finish(task, Ending(status="cancelled"))
        elif await self._waits_in_line(task):
            await self._ledger.agenda.look_at(task.id, time.time() + self._pace.in_line)
        elif task.attempt >= self._settings.task_max_attempts:
            await self.endings.finish(task, lost(task))
        else:
            await self._ledger.agenda.look_at(task.id, time.time() + self._pace.after_error)
            await self.dispatcher.submit(task.id)

    async def _waits_in_line(self, task: Task) -> bool:
        """Also of a task whose replica died between the ledger and the line: it enters now."""
        if await self._line.position(task.id) is not None:
            return True
        if task.attempt > 0:
            return False
        await self._line.enter(task.user, task.id, task.priority)  # nothing, where it is in flight
        self.dispatcher.kick()
        return await self._line.position(task.id) is not None

    async def _look_in_queue(self, task: Task, ticket: str) -> None:
        if task.cancelling:
            report = await self._queue.cancel(ticket)
            if report.state in ("cancelled", "unknown"):
                await self.endings.finish(task, Ending(status="cancelled"))
                return
        report = await self._queue.status(ticket)
        match report.state:
            case "queued":
                await self._still_queued(task)
            case "running":
                await self._still_running(task, report)
            case "completed":
                await self._completed(task, report)
            case "failed" | "timed_out":
                await self.endings.finish(task, failed(report))
            case "cancelled" if task.cancelling:
                await self.endings.finish(task, Ending(status="cancelled"))
            case _:
                await self._lost_by_queue(task)

    async def _still_queued(self, task: Task) -> None:
        waiting_for = await self._capacity.waiting_for()
        if waiting_for != task.waiting_for:
            await self._ledger.note(task, waiting_for=waiting_for)
        few = self._due <= self._pace.few
        await self._ledger.agenda.look_at(
            task.id, time.time() + (self._pace.queued_while_few if few else self._pace.queued)
        )

    async def _still_running(self, task: Task, report: Report) -> None:
        if report.progress is not None:
            await self._advance(task, report.progress)
        elif task.status == "queued":
            begun = replace(task, status="processing", started_at=time.time(), waiting_for=None)
            await self._ledger.note(task, status=begun.status, started_at=begun.started_at, waiting_for=None)
            await self._webhooks.task_changed(begun)
        await self._ledger.agenda.look_at(task.id, time.time() + self._until_next(task, report))

    def _until_next(self, task: Task, report: Report) -> float:
        if task.ended_at is not None and time.time() - task.ended_at < self._pace.told_within:
            return self._pace.ending
        is_told = task.heard_at is not None and time.time() - task.heard_at < self._pace.told_within
        can_rest = is_told and report.progress is None and not self._queue.rates.shows_lost_workers
        return self._pace.told if can_rest else self._pace.running

    async def _completed(self, task: Task, report: Report) -> None:
        if report.output is None or ("images" not in report.output and "video" not in report.output):
            await self._lost_by_queue(task)  # a result that the platform dropped for its size, or lost
            return
        try:
            adopted = await self._results.adopt(report.output)
        except StorageFailed:
            raise  # another look may find the store well again
        except FluxError as error:
            await self.endings.finish(task, refused(error))
            return
        held = await self._ledger.input(task.id)
        if held is not None and is_whole(held):
            await self._hits.remember(task, held.get("given", held), adopted)
        await self.endings.finish(task, completed(task, adopted))

    async def _lost_by_queue(self, task: Task) -> None:
        """The queue knows nothing of it: its result may be in the store all the same, else it is submitted again."""
        known = await self._cache.task_status(task.id)
        entry = known.result if known is not None and known.status == "completed" else None
        if entry is not None and await self._results.has(entry):
            await self.endings.finish(task, found_again(task, entry))
        elif task.submitted_at is not None and time.time() - task.submitted_at < self._pace.unknown_again:
            await self._ledger.agenda.look_at(task.id, time.time() + self._pace.unknown_again)
        elif task.attempt >= self._settings.task_max_attempts:
            await self.endings.finish(task, lost(task))
        elif await self._ledger.agenda.lose_ticket(task):
            log.warning("task lost by the queue", extra={"job_id": task.id, "detail": f"attempt {task.attempt}"})
            await self.dispatcher.submit(task.id)

    async def _advance(self, task: Task, update: Mapping[str, Any], *, is_told: bool = False) -> None:
        news = news_of(update)
        if news is not None:
            is_news = await self._ledger.advance(task, news, is_told=is_told)
            if is_news and task.status == "queued":
                await self._webhooks.task_changed(replace(task, status="processing", started_at=time.time()))

    async def _cancel_in_queue(self, ticket: str) -> None:
        try:
            await self._queue.cancel(ticket)
        except (QueueAway, QueueRefused) as error:
            log.warning("task not cancelled in the queue", extra={"detail": str(error)})
