"""Whichever call to Redis, to the queue or to the store fails, and in whatever way: what the client hears is true, and
a task ends once and is charged once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from flux_engine.cache import redis_link
from flux_engine.gateway.tasks import submit
from flux_engine.gateway.tasks.ledger import agenda, beginnings
from flux_engine.gateway.webhooks import delivery_log
from flux_engine.job.fingerprint import ModelIdentity
from tests.gateway.breaking.calls import WAYS, Calls, Fault, Place, Way
from tests.gateway.breaking.case import Case, work
from tests.gateway.breaking.scenarios import SCENARIOS
from tests.gateway.world import World, world
from tests.servers import RedisProcess

MADE: Final = ModelIdentity(id="flux-tiny", revision="r", precision="float32")
NARROW: Final[dict[str, Any]] = {"MAX_TASKS_IN_FLIGHT_PER_USER": "1", "MAX_TASKS_WAITING_PER_USER": "2"}
ALWAYS: Final[dict[str, Way]] = {
    "create_without_key": "lost",
    "hit_without_key": "lost",
    "full_line": "away",
    "purge": "lost",
    "then_cancelled": "away",
}


Play = Callable[[str, Sequence[Way]], Awaitable[None]]


@pytest.fixture
def play_all(
    monkeypatch: pytest.MonkeyPatch, shared_redis: RedisProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Play:
    """A scenario with each of its calls failing in each of some ways. Leases are short: what another replica would take
    over is taken over at once."""
    monkeypatch.setattr(redis_link, "RETRY_REFUSED_S", 0.05)
    monkeypatch.setattr(agenda, "LEASE_S", 0.2)
    monkeypatch.setattr(beginnings, "FIRST_LOOK_S", 0.2)
    monkeypatch.setattr(delivery_log, "LEASE_S", 0.2)
    monkeypatch.setattr(submit, "TICKET_AGAIN_S", 0.02)
    calls, numbers, left = Calls(monkeypatch), count(1), set[str]()

    async def play(gw: World, name: str, fault: Fault) -> list[Place]:
        user = uuid.uuid4().hex
        key, seed = await gw.key_of(user), next(numbers) * 1000
        case = Case(gw, calls, fault, user=user, seed=seed, key=key, folder=tmp_path, left_before=left)
        await case.wait_until_reachable()
        try:
            await SCENARIOS[name](case)
        except BaseException as error:
            error.add_note(f"{fault.way}: {fault.place}")
            raise
        return list(calls.places)

    async def each(name: str, ways: Sequence[Way]) -> None:
        settings: dict[str, Any] = NARROW if name in ("full_line", "cancel_in_line") else {}
        if name.startswith("then_"):  # of a request it would make a stall one more job
            monkeypatch.setattr(agenda, "SUBMIT_LEASE_S", 0.4)
        async with world(shared_redis.url, tmp_path, WEBHOOK_PRIVATE_ADDRESSES="on", **settings) as gw, _worked(gw):
            for place in await play(gw, name, Fault()):
                for way in ways:
                    if way in WAYS[place.to]:
                        await play(gw, name, Fault(place, way))
        assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []

    return each


@pytest.mark.parametrize(("name", "way"), ALWAYS.items())
async def test_each_call_of(name: str, way: Way, play_all: Play) -> None:
    await play_all(name, [way])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
async def test_each_call_in_every_way_of(name: str, play_all: Play) -> None:
    await play_all(name, get_args(Way))


@asynccontextmanager
async def _worked(gw: World) -> AsyncIterator[None]:
    """A worker is there, and its results are known again."""
    await gw.gateway.offers.notices.makes(MADE)
    working = asyncio.create_task(work(gw))
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
