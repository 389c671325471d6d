"""What gateway and Celery workers tell one another of a job, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from flux_engine.queues.records import JobRecords
from tests.servers import RedisProcess

LINE = "flux:0"


@pytest.fixture
async def records(redis: RedisProcess) -> AsyncIterator[JobRecords]:
    client = Redis.from_pool(BlockingConnectionPool.from_url(redis.url, decode_responses=True))
    yield JobRecords(client, namespace="test", lease_s=3)
    await client.aclose()


async def state(records: JobRecords, ticket: str) -> str | None:
    record = await records.look(ticket, line=LINE)
    return None if record is None else record.state


async def test_from_queue_to_result(records: JobRecords) -> None:
    await records.put("t", line=LINE)
    assert await state(records, "t") == "queued"
    assert await records.claim("t", line=LINE, worker="w") == "claimed"
    assert await records.renew("t", worker="w", progress={"stage": "text", "seq": 1}) == "held"
    record = await records.look("t", line=LINE)
    assert record is not None
    assert (record.state, record.progress) == ("running", {"stage": "text", "seq": 1})
    assert await records.finish("t", worker="w", state="completed", outcome={"value": {"seed": 7}})
    record = await records.look("t", line=LINE)
    assert record is not None
    assert (record.state, record.outcome) == ("completed", {"value": {"seed": 7}})


async def test_a_message_that_comes_twice_is_begun_once(records: JobRecords) -> None:
    await records.put("t", line=LINE)
    said = await asyncio.gather(*(records.claim("t", line=LINE, worker=f"w{i}") for i in range(20)))
    assert sorted(said) == ["claimed"] + ["taken"] * 19


async def test_a_lease_that_ran_out_makes_the_job_lost_and_its_worker_cannot_end_it(records: JobRecords) -> None:
    await records.put("t", line=LINE)
    await records.claim("t", line=LINE, worker="w")
    await records.redis.delete("flux:test:celery:lease:t")  # as the server does when it runs out
    assert await state(records, "t") == "lost"
    assert await records.renew("t", worker="w") == "lost"
    assert not await records.finish("t", worker="w", state="completed", outcome={"value": {}})
    assert await state(records, "t") == "lost"


async def test_a_queued_job_whose_message_is_gone_is_lost_once_later_ones_began_long_ago(records: JobRecords) -> None:
    for ticket in ("gone", "later"):
        await records.put(ticket, line=LINE)
    await records.claim("later", line=LINE, worker="w")
    assert await state(records, "gone") == "queued"  # it may be on its way
    await records.redis.zadd("flux:test:celery:claims:flux:0", {"2": 1.0})  # as if long ago
    assert await state(records, "gone") == "lost"
    assert await records.claim("gone", line=LINE, worker="w") == "taken"


async def test_jobs_of_another_line_do_not_overtake(records: JobRecords) -> None:
    await records.put("low", line="flux:5")
    await records.put("normal", line=LINE)
    await records.claim("normal", line=LINE, worker="w")
    await records.redis.zadd("flux:test:celery:claims:flux:0", {"9": 1.0})
    record = await records.look("low", line="flux:5")
    assert record is not None
    assert record.state == "queued"


@pytest.mark.parametrize("begun", [False, True])
async def test_cancelling(records: JobRecords, begun: bool) -> None:
    await records.put("t", line=LINE)
    if not begun:
        await records.cancel("t")
        assert await state(records, "t") == "cancelled"
        assert await records.claim("t", line=LINE, worker="w") == "cancelled"
        return
    await records.claim("t", line=LINE, worker="w")
    async with records.redis.pubsub() as messages:
        await messages.subscribe(records.cancel_channel)
        await messages.get_message(timeout=None)
        await records.cancel("t")
        message = await messages.get_message(timeout=None)
    assert message is not None
    assert message["data"] == "t"
    assert await records.renew("t", worker="w") == "cancelling"
    assert await state(records, "t") == "running"  # until its worker has left it


async def test_what_nobody_knows(records: JobRecords) -> None:
    assert await state(records, "t") is None
    assert await records.claim("t", line=LINE, worker="w") == "unknown"
    assert await records.renew("t", worker="w") == "lost"
    await records.cancel("t")
    assert await state(records, "t") is None


async def test_workers_are_counted_until_they_leave_or_fall_silent(records: JobRecords) -> None:
    await records.present("a", "idle")
    await records.present("b", "running")
    await records.present("c", "idle")
    assert await records.workers() == {"idle": 2, "running": 1}
    await records.leave("a")
    await records.redis.delete("flux:test:celery:worker:c")  # as the server does after half a minute of silence
    assert await records.workers() == {"running": 1}
