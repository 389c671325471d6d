"""The order in which turns become submissions, however long each takes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flux_engine.gateway.seams import Turn
from flux_engine.gateway.tasks.submit import Dispatcher
from tests import waiting
from tests.gateway.world import world
from tests.servers import RedisProcess


class Turns:
    """A line whose turns have all come."""

    def __init__(self, *turns: Turn) -> None:
        self._left = list(turns)

    async def next(self) -> Turn | None:
        return self._left.pop(0) if self._left else None


class Slow(Dispatcher):
    """Submits what `may` names, and notes the order."""

    def __init__(self, line: Turns, *may: str) -> None:
        nothing: Any = None
        seam: Any = line
        super().__init__(nothing, seam, nothing, nothing, finish=nothing, kept=nothing, first_look_s=0.0)
        self.may = {name: asyncio.Event() for name in may}
        self.begun: list[str] = []
        self.submitted: list[str] = []

    async def submit(self, task_id: str) -> None:
        self.begun.append(task_id)
        if task_id in self.may:
            await self.may[task_id].wait()
        self.submitted.append(task_id)


async def _order(slow: str, *turns: Turn) -> list[str]:
    """Of the submissions, where that of `slow` ends only when every other that does not wait for it has ended."""
    dispatcher = Slow(Turns(*turns), slow)
    running = asyncio.create_task(dispatcher.run())
    try:
        await waiting.until(lambda: slow in dispatcher.begun)
        for _ in range(20):  # whatever may go on does
            await asyncio.sleep(0)
        dispatcher.may[slow].set()
        await waiting.until(lambda: len(dispatcher.submitted) == len(turns))
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return dispatcher.submitted


async def test_whoever_has_more_in_flight_overtakes_no_ones_first() -> None:
    turns = Turn("ada", "a0", is_first=True), Turn("eve", "e", is_first=True), Turn("ada", "a1", is_first=False)
    assert await _order("e", *turns) == ["a0", "e", "a1"]


async def test_nor_does_whoever_has_none_left_in_flight_since_the_last_turn() -> None:
    turns = Turn("ada", "a0", is_first=True), Turn("eve", "e", is_first=True), Turn("ada", "a1", is_first=True)
    assert await _order("e", *turns) == ["a0", "e", "a1"]


async def test_firsts_of_others_wait_for_nobody() -> None:
    turns = Turn("eve", "e", is_first=True), Turn("bob", "b", is_first=True), Turn("cat", "c", is_first=True)
    assert await _order("e", *turns) == ["b", "c", "e"]


@pytest.mark.parametrize(
    ("named", "queue"),
    [({"model": "flux-tiny"}, "flux.flux-tiny"), ({"model_id": "FLUX-Tiny"}, "flux.flux-tiny"), ({}, "flux")],
)
async def test_a_model_has_one_queue_however_it_is_named(
    named: dict[str, str], queue: str, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with world(shared_redis.url, tmp_path, QUEUE="celery", CELERY_QUEUE_PER_MODEL="true") as gw:
        task = await gw.until_submitted((await gw.create(**named))["task_id"])
        assert task.ticket is not None
        assert task.ticket.split(":")[0] == queue
