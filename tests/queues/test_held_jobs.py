"""A Celery worker's job under its lease, on a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from flux_engine.progress import Send
from flux_engine.queues.held_jobs import HeldJobs
from flux_engine.queues.parcel import MESSAGE_BYTES, Parcels
from flux_engine.queues.records import JobRecords, Record
from flux_engine.queues.worker_metrics import WorkerMetrics
from flux_engine.results.folder import FolderStore
from tests import waiting
from tests.servers import RedisProcess

LINE = "flux:0"
TICKET = f"{LINE}:job:1"
LARGE = {"images": ["A" * MESSAGE_BYTES]}


class SlowStore(FolderStore):
    """A folder that stores nothing until it `may_store`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, has_urls=False)
        self.is_asked = asyncio.Event()
        self.may_store = asyncio.Event()

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        self.is_asked.set()
        await self.may_store.wait()
        await super().put(data, key=key, content_type=content_type)


@pytest.fixture
async def records(redis: RedisProcess) -> AsyncIterator[JobRecords]:
    client = Redis.from_pool(BlockingConnectionPool.from_url(redis.url, decode_responses=True))
    yield JobRecords(client, namespace="test", lease_s=60)
    await client.aclose()


def jobs_of(records: JobRecords, store: FolderStore, work: Callable[[], Awaitable[Mapping[str, Any]]]) -> HeldJobs:
    async def run_job(message: Mapping[str, Any], send: Send) -> Mapping[str, Any]:
        return await work()

    async def on_change() -> None:
        """Nobody asks who is present."""

    return HeldJobs(records, Parcels(store), worker="w", run_job=run_job, metrics=WorkerMetrics(), on_change=on_change)


def giving(result: Mapping[str, Any]) -> Callable[[], Awaitable[Mapping[str, Any]]]:
    async def work() -> Mapping[str, Any]:
        return result

    return work


async def look(records: JobRecords) -> Record:
    record = await records.look(TICKET, line=LINE)
    assert record is not None
    return record


async def test_a_large_result_is_held_while_it_is_stored(records: JobRecords, tmp_path: Path) -> None:
    """A bucket may take longer than a lease lasts."""
    store = SlowStore(tmp_path)
    jobs = jobs_of(records, store, giving(LARGE))
    await records.put(TICKET, line=LINE)
    running = asyncio.create_task(jobs.run(TICKET, {"value": {"id": "job"}}))
    await store.is_asked.wait()
    lease = f"flux:test:celery:lease:{TICKET}"
    await records.redis.delete(lease)  # as the server does when it runs out

    async def is_renewed() -> bool:
        return bool(await records.redis.exists(lease))

    await waiting.until(is_renewed)
    assert (await look(records)).state == "running"
    store.may_store.set()
    await running
    record = await look(records)
    assert record.state == "completed"
    assert await Parcels(store).unpack(record.outcome or {}) == LARGE


async def test_the_error_of_a_large_job_names_it(records: JobRecords, tmp_path: Path) -> None:
    """Its id is the ticket's: the message itself lies in the store."""

    async def work() -> Mapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("nobody ended it")

    store = FolderStore(tmp_path, has_urls=False)
    parcel = await Parcels(store).pack({"id": "job", "input": LARGE, "timeout_s": 0.01})
    await records.put(TICKET, line=LINE)
    await jobs_of(records, store, work).run(TICKET, parcel)
    record = await look(records)
    assert record.state == "timed_out"
    assert json.loads((record.outcome or {})["error"])["job_id"] == "job"


async def test_a_cancelled_job_clears_away_in_its_own_time(records: JobRecords, tmp_path: Path) -> None:
    """It is cancelled once, however often a renewal of the lease says so."""
    clearing, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> Mapping[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            clearing.set()
            await may_end.wait()
        raise AssertionError("nobody cancelled it")

    jobs = jobs_of(records, FolderStore(tmp_path, has_urls=False), work)
    await records.put(TICKET, line=LINE)
    running = asyncio.create_task(jobs.run(TICKET, {"value": {"id": "job"}}))

    async def is_running() -> bool:
        return (await look(records)).state == "running"

    await waiting.until(is_running)
    await records.cancel(TICKET)
    await clearing.wait()
    lease = f"flux:test:celery:lease:{TICKET}"
    for _ in range(2):
        await records.redis.delete(lease)

        async def is_renewed() -> bool:
            return bool(await records.redis.exists(lease))

        await waiting.until(is_renewed)
    assert len(jobs) == 1
    may_end.set()
    await running
    assert (await look(records)).state == "cancelled"


async def test_a_result_that_json_does_not_hold_fails_the_job(records: JobRecords, tmp_path: Path) -> None:
    jobs = jobs_of(records, FolderStore(tmp_path, has_urls=False), giving({"seconds": float("nan")}))
    await records.put(TICKET, line=LINE)
    await jobs.run(TICKET, {"value": {"id": "job"}})
    record = await look(records)
    assert record.state == "failed"
    assert "could not be sent" in str(record.outcome)
