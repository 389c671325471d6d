"""The queue's side of Celery on a real broker, where no worker is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from flux_engine.queues.celery import CeleryQueue
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.job_queue import QueueAway, QueuedJob
from tests.servers import RedisProcess

JOB = {"prompt": "a red sun"}


@pytest.fixture
async def queue(redis: RedisProcess, tmp_path: Path) -> AsyncIterator[CeleryQueue]:
    made = CeleryQueue(CelerySettings.from_environment({"REDIS_URL": redis.url, "CACHE_NAMESPACE": "test"}))
    yield made
    await made.close()


async def put_long_ago(server: Redis, ticket: str) -> None:
    """As if the job had been submitted, and its message missed, in 1970."""
    key = f"flux:test:celery:job:{ticket}"
    await server.hset(key, mapping={"at": 1.0})
    if await server.hexists(key, "missing_at"):
        await server.hset(key, mapping={"missing_at": 1.0})


async def test_a_job_whose_message_is_gone_is_unknown_and_its_message_too_late(
    queue: CeleryQueue, redis: RedisProcess
) -> None:
    server = Redis.from_url(redis.url)
    ticket = await queue.submit(QueuedJob(id="gone", input=JOB))
    assert await server.delete("flux:test:broker:flux") == 1  # as a worker takes it that is killed before it begins
    states = []
    for _ in range(3):
        states.append((await queue.status(ticket)).state)
        await put_long_ago(server, ticket)
    assert states == ["queued", "queued", "unknown"]
    await server.aclose()


@pytest.mark.parametrize("priority", ["normal", "low"])
async def test_a_job_whose_message_waits_stays_queued_however_long(
    queue: CeleryQueue, redis: RedisProcess, priority: str
) -> None:
    server = Redis.from_url(redis.url)
    ticket = await queue.submit(QueuedJob(id="waits", input=JOB, priority=priority))  # type: ignore[arg-type]
    for _ in range(3):
        await put_long_ago(server, ticket)
        assert (await queue.status(ticket)).state == "queued"
    await server.aclose()


async def test_a_broker_that_is_away_leaves_no_record(redis: RedisProcess) -> None:
    """The task is submitted again and again until the broker is back, each time under another ticket."""
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:9/0"}
    settings = CelerySettings.from_environment({"REDIS_URL": redis.url, "CACHE_NAMESPACE": "test", **broker})
    queue, server = CeleryQueue(settings), Redis.from_url(redis.url)
    with pytest.raises(QueueAway, match="does not answer"):
        await queue.submit(QueuedJob(id="early", input=JOB))
    assert await server.keys("flux:test:celery:job:*") == []
    await queue.close()
    await server.aclose()
