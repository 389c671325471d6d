"""One look at a task, and what follows from what it finds.

In this order: the worker's own word in the shared Redis, then the queue's status. A task that the queue has forgotten
is submitted again under the same id, a bounded number of times; one that takes too long fails.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from flux_engine.errors import StorageFailed
from flux_engine.gateway.capacity import Capacity
from flux_engine.gateway.problems import TooMany
from flux_engine.gateway.seams import Line, Webhooks
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.task import Task, TaskError
from flux_engine.gateway.tasks.cancellation import Cancellation
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.gateway.tasks.outcomes import Outcomes
from flux_engine.gateway.tasks.pace import Pace
from flux_engine.gateway.tasks.reports import lost, news_of
from flux_engine.gateway.tasks.submit import Dispatcher
from flux_engine.queues.job_queue import JobQueue, QueueAway, QueueRefused, Report

ORPHANED_S: Final = 30.0  # until a task that nobody waits for is cancelled

log = logging.getLogger(__name__)


class Look:
    """See the module. Each look ends with when to look again, or with the task's end."""

    def __init__(
        self,
        ledger: Ledger,
        queue: JobQueue,
        *,
        dispatcher: Dispatcher,
        endings: Endings,
        cancellation: Cancellation,
        outcomes: Outcomes,
        line: Line,
        webhooks: Webhooks,
        settings: GatewaySettings,
        capacity: Capacity,
        pace: Pace,
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._dispatcher = dispatcher
        self._endings = endings
        self._cancellation = cancellation
        self._outcomes = outcomes
        self._line = line
        self._webhooks = webhooks
        self._settings = settings
        self._capacity = capacity
        self._pace = pace

    async def at(self, task_id: str, *, leased_until: float = 0.0, in_flight: int = 1) -> None:
        """Look at one task; the fewer are `in_flight`, the sooner it is looked at again. Whoever has claimed it says
        until when, so that no look that is asked for meanwhile is put off."""
        task = await self._ledger.get(task_id)
        if task is None:  # an evicting Redis has lost it: a place that it kept would be taken for ever
            await self._line.leave("", task_id)
            await self._ledger.agenda.look_at(task_id, time.time())  # which drops what is not there
        elif task.is_final:
            await self._endings.settle(task)
        elif self._is_overdue(task):
            await self._give_up(task)
        elif task.orphaned_at is not None and not task.cancelling and time.time() - task.orphaned_at > ORPHANED_S:
            await self._cancellation.cancel(task, as_orphan=True)
        else:
            if task.ticket is None:
                again_at = await self._look_before_queue(task)
            else:
                again_at = await self._look_in_queue(task, task.ticket, again_s=self._pace.between(in_flight))
            if again_at is not None:
                await self._ledger.agenda.look_again(task.id, again_at, leased_until=leased_until)
            if task.orphaned_at is not None:
                await self._ledger.agenda.look_by(task.id, task.orphaned_at + ORPHANED_S + 0.1)

    async def advance(self, task: Task, update: Mapping[str, Any], *, is_told: bool = False) -> None:
        """A worker says how far `task` is, `is_told` where through Redis."""
        news = news_of(update)
        if news is not None:
            is_news = await self._ledger.advance(task, news, is_told=is_told)
            if is_news and task.status == "queued":
                await self._webhooks.task_changed(replace(task, status="processing", started_at=time.time()))

    def _is_overdue(self, task: Task) -> bool:
        now = time.time()
        if task.deadline_at is not None and now > task.deadline_at:
            return True
        return task.submitted_at is not None and now - task.submitted_at > self._settings.task_timeout_seconds

    async def _give_up(self, task: Task) -> None:
        """A result or an error that stands ready in the queue is not thrown away because it was asked for late."""
        if task.ticket is not None:
            report = await self._report_at_last(task, task.ticket)
            if report is not None and await self._ends_as_reported(task, report):
                return
            await self._cancellation.in_queue(task, task.ticket)
        is_deadline = task.deadline_at is not None and time.time() > task.deadline_at
        reason = "`deadline_seconds` passed" if is_deadline else "no worker finished this task in time; send it again"
        error = TaskError(code="internal", message=reason, retryable=not is_deadline)
        await self._endings.finish(task, Ending(status="cancelled" if task.cancelling else "failed", error=error))

    async def _ends_as_reported(self, task: Task, report: Report) -> bool:
        try:
            return report.state in ("completed", "failed") and await self._outcomes.take(task, report)
        except StorageFailed:  # it had all the time that there was
            return False

    async def _report_at_last(self, task: Task, ticket: str) -> Report | None:
        """None where the queue does not answer: a task must end, whether or not it does."""
        try:
            return await self._queue.status(ticket)
        except (QueueAway, QueueRefused) as error:
            log.warning("task not looked at in the queue", extra={"job_id": task.id, "detail": str(error)})
            return None

    async def _look_before_queue(self, task: Task) -> float | None:
        """When to look again, where that is not settled otherwise."""
        if task.cancelling:
            await self._endings.finish(task, Ending(status="cancelled"))
        elif await self._waits_in_line(task):
            return time.time() + self._pace.in_line
        elif task.attempt >= self._settings.task_max_attempts:
            await self._endings.finish(task, lost(task))
        else:
            await self._ledger.agenda.look_at(task.id, time.time() + self._pace.after_error)
            await self._dispatcher.submit(task.id)
        return None

    async def _waits_in_line(self, task: Task) -> bool:
        """Also of a task whose replica died between the ledger and the line: it enters now."""
        if await self._line.position(task.id) is not None:
            return True
        if task.attempt > 0:
            return False
        try:
            await self._line.enter(task.user, task.id, task.priority)  # nothing, where it is in flight
        except TooMany:  # it waits for its place as well
            return True
        self._dispatcher.kick()
        return await self._line.position(task.id) is not None

    async def _look_in_queue(self, task: Task, ticket: str, *, again_s: float) -> float | None:
        """As `_look_before_queue`."""
        if task.cancelling:
            report = await self._queue.cancel(ticket)
            if report.state in ("cancelled", "unknown"):
                await self._endings.finish(task, Ending(status="cancelled"))
                return None
        report = await self._queue.status(ticket)
        match report.state:
            case "queued":
                return await self._still_queued(task, again_s=again_s)
            case "running":
                return await self._still_running(task, report, again_s=again_s)
            case "completed" | "failed" | "timed_out":
                if not await self._outcomes.take(task, report):
                    return await self._lost_by_queue(task)
            case "cancelled" if task.cancelling:
                await self._endings.finish(task, Ending(status="cancelled"))
            case _:
                return await self._lost_by_queue(task)
        return None

    async def _still_queued(self, task: Task, *, again_s: float) -> float:
        waiting_for = await self._capacity.waiting_for()
        if waiting_for != task.waiting_for:
            await self._ledger.note(task, waiting_for=waiting_for)
        return time.time() + again_s

    async def _still_running(self, task: Task, report: Report, *, again_s: float) -> float:
        if report.progress is not None:
            await self.advance(task, report.progress)
        elif task.status == "queued":
            begun = replace(task, status="processing", started_at=time.time(), waiting_for=None)
            await self._ledger.note(task, status=begun.status, started_at=begun.started_at, waiting_for=None)
            await self._webhooks.task_changed(begun)
        return time.time() + self._until_next(task, report, again_s)

    def _until_next(self, task: Task, report: Report, again_s: float) -> float:
        if task.ended_at is not None and time.time() - task.ended_at < self._pace.told_within:
            return self._pace.ending
        is_told = task.heard_at is not None and time.time() - task.heard_at < self._pace.told_within
        can_rest = is_told and report.progress is None and not self._queue.rates.shows_lost_workers
        return self._pace.told if can_rest else again_s

    async def _lost_by_queue(self, task: Task) -> float | None:
        """The queue knows nothing of it: its result may be in the store all the same, else it is submitted again."""
        if await self._outcomes.find(task):
            return None
        if task.submitted_at is not None and time.time() - task.submitted_at < self._pace.unknown_again:
            return time.time() + self._pace.unknown_again
        if task.attempt >= self._settings.task_max_attempts:
            await self._endings.finish(task, lost(task))
        elif await self._ledger.agenda.lose_ticket(task):
            log.warning("task lost by the queue", extra={"job_id": task.id, "detail": f"attempt {task.attempt}"})
            await self._dispatcher.submit(task.id)
        return None
