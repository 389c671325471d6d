"""What became of a job, made the end of its task: a worker's result is adopted, an error is passed on.

Each method returns False where there is nothing to end the task with, which then goes on. What ends a task is in the
store first, and in the ledger after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flux_engine.cache.manager import CacheManager
from flux_engine.errors import FluxError, StorageFailed
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.hits import Hits
from flux_engine.gateway.tasks.kept import is_whole
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.reports import completed, failed, found_again, refused
from flux_engine.gateway.tasks.results import Results
from flux_engine.queues.job_queue import Report


class Outcomes:
    """See the module."""

    def __init__(self, ledger: Ledger, endings: Endings, *, cache: CacheManager, results: Results, hits: Hits) -> None:
        self._ledger = ledger
        self._endings = endings
        self._cache = cache
        self._results = results
        self._hits = hits

    async def take(self, task: Task, report: Report) -> bool:
        """End `task` by the result or the error in `report`. Raises StorageFailed where another look may find the
        store well again."""
        if report.state in ("failed", "timed_out"):
            await self._endings.finish(task, failed(report))
            return True
        output = _result_in(report)
        if output is None:
            return False
        try:
            adopted = await self._results.adopt(output)
        except StorageFailed:
            raise
        except FluxError as error:
            await self._endings.finish(task, refused(error))
            return True
        held = await self._ledger.input(task.id)
        if held is not None and is_whole(held):
            await self._hits.remember(task, held.get("given", held), adopted)
        await self._endings.finish(task, completed(task, adopted))
        return True

    async def find(self, task: Task) -> bool:
        """End `task` by the result that its worker stored, of which the queue knows nothing."""
        known = await self._cache.task_status(task.id)
        entry = known.result if known is not None and known.status == "completed" else None
        if entry is None or not await self._results.has(entry):
            return False
        await self._endings.finish(task, found_again(task, entry))
        return True


def _result_in(report: Report) -> Mapping[str, Any] | None:
    """What a completed job made; None also where the platform dropped it for its size, or lost it."""
    output = report.output if report.state == "completed" else None
    return output if output is not None and ("images" in output or "video" in output) else None
