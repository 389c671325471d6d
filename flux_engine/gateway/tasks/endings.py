"""The end of a task, and what follows from it: its charge, its place in the line, its webhooks, its files.

Each step may be repeated, so that another replica goes on where one has died.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from flux_engine.errors import StorageFailed
from flux_engine.gateway.seams import Limits, Line, Webhooks
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.kept import KeptInputs
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.gateway.tasks.results import Results

LOOSE_S: Final = 600.0  # longer than a request that makes a task takes, with all that is stored for it
PARTS_EVERY_S: Final = 60.0

log = logging.getLogger(__name__)


class Endings:
    """See the module. `on_freed` is called when a place in the line may have become free."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        limits: Limits,
        line: Line,
        webhooks: Webhooks,
        results: Results,
        kept: KeptInputs,
        on_end: Callable[[Task], None],
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._line = line
        self._webhooks = webhooks
        self._results = results
        self._kept = kept
        self._on_end = on_end
        self.on_freed: Callable[[], None] = lambda: None

    async def finish(self, task: Task, ending: Ending) -> Task:
        """End `task`, once, and do what follows; whoever ended it before has the last word."""
        ended = await self._ledger.finish(task, ending)
        if ended is None:
            known = await self._ledger.get(task.id)
            if known is None or not known.is_final:
                return task
            ended = known
        else:
            self._on_end(ended)
            code = ended.error.code if ended.error is not None else None
            log.info(f"task {ended.status}", extra={"job_id": ended.id, "code": code})
            ended = await self._ledger.get(task.id) or ended  # a purge wished for since `task` was read
        await self.settle(ended)
        return ended

    async def settle_new(self, task: Task) -> None:
        """A task that began and ended at once, and is in the ledger."""
        self._on_end(task)
        await self.settle(task)

    async def settle(self, task: Task) -> None:
        """What follows from the end of `task`. May be repeated."""
        await self._charge(task)
        await self._line.leave(task.user, task.id)
        await self._webhooks.task_changed(task)
        if task.is_purge_wished and not task.is_purged:
            await self.purge(task)
        await self._ledger.settle(task)
        self.on_freed()

    async def _charge(self, task: Task) -> None:
        if task.status == "completed":
            used = task.work_used if task.work_used is not None else task.work
            await self._limits.settle(task.id, used, user=task.user, at=task.created_at)
        else:
            await self._limits.give_back(task.id)

    async def check_reservations(self) -> None:
        """Close what was reserved for tasks that never were, or that ended as their gateway died."""
        for task_id in await self._limits.left_open():
            task = await self._ledger.get(task_id)
            if task is None:
                await self._limits.give_back(task_id)
            elif task.is_final:
                await self._charge(task)

    async def run(self) -> None:
        """Look for leftovers in the store until cancelled; by itself, so that a store that hangs holds up nothing."""
        while True:
            try:
                await self.check_parts()
            except (RedisError, OSError) as error:
                log.debug("parts of inputs not looked at", extra={"detail": type(error).__name__})
            await asyncio.sleep(PARTS_EVERY_S)

    async def check_parts(self) -> None:
        """Delete what was stored for tasks that never were."""
        parts = await self._ledger.loose.noted(before=time.time() - LOOSE_S)
        known = {task.id for task in await self._ledger.many([part.task_id for part in parts])} if parts else set()
        for part in parts:
            if part.task_id not in known:
                try:
                    await self._kept.forget_part(part.file_key)
                except StorageFailed as error:  # another time
                    log.warning("store unreachable", extra={"job_id": part.task_id, "detail": error.message})
                    continue
            await self._ledger.loose.settled(part)

    async def purge(self, task: Task) -> None:
        """Delete the files of a task that has ended, but for those that another task has as well. Raises
        StorageFailed."""
        for key in await self._ledger.holders.release(task):
            await self._results.forget(key)
        held = await self._ledger.input(task.id)
        if held is not None:
            await self._kept.forget(held)
        await self._ledger.purge(task)
