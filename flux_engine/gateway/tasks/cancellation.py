"""Taking a task back: at once where no worker has begun with it, and else as soon as its worker has stopped."""

from __future__ import annotations

import logging

from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.queues.job_queue import JobQueue, QueueAway, QueueRefused

log = logging.getLogger(__name__)


class Cancellation:
    """See the module. What the queue does not cancel now, the sweep tries again."""

    def __init__(self, ledger: Ledger, queue: JobQueue, endings: Endings) -> None:
        self._ledger = ledger
        self._queue = queue
        self._endings = endings

    async def cancel(self, task: Task, *, as_orphan: bool = False) -> Task:
        """Take `task` back, as its user wishes, or `as_orphan`, unless somebody waits for it again; the task as it
        stands then."""
        if not await self._ledger.wish_cancelled(task, as_orphan=as_orphan):
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
        return await self._endings.finish(task, Ending(status="cancelled"))

    async def in_queue(self, task: Task, ticket: str) -> None:
        """Tell the queue alone, whose answer changes nothing."""
        try:
            await self._queue.cancel(ticket)
        except (QueueAway, QueueRefused) as error:
            log.warning("task not cancelled in the queue", extra={"job_id": task.id, "detail": str(error)})
