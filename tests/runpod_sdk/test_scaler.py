"""What is laid over the SDK's loops, against the SDK itself; tests/runpod/ has the whole of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.worker_state import JobsProgress

from flux_engine.runpod_sdk.scaler import Deliveries, wake_on_events


async def test_jobs_begin_and_follow_one_another_without_a_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the SDK's own looks would cost a tenth of a second or a whole one: 200 jobs would take minutes."""
    monkeypatch.setattr(rp_scale, "JobScaler", rp_scale.JobScaler)  # put back afterwards
    assert wake_on_events(2, Deliveries())
    waiting, done = [{"id": f"job-{number}", "input": {}} for number in range(200)], list[str]()
    all_done = asyncio.Event()

    async def take(_session: Any, count: int) -> list[dict[str, Any]]:
        if not waiting:
            await all_done.wait()
            scaler.kill_worker()
            return []
        taken, waiting[:] = waiting[:count], waiting[count:]
        return taken

    async def handle(_session: Any, _config: Any, job: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        done.append(job["id"])
        if len(done) == 200:
            all_done.set()

    scaler = rp_scale.JobScaler({"concurrency_modifier": lambda _: 2})
    scaler.jobs_handler = handle
    scaler.take_from_platform = take
    async with asyncio.timeout(30):
        await asyncio.gather(scaler.get_jobs(None), scaler.run_jobs(None))
    assert sorted(done) == sorted(f"job-{number}" for number in range(200))
    assert JobsProgress().get_job_count() == 0


async def test_a_job_is_taken_once_the_gpu_has_done_with_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """While that is delivered, and not earlier: an idle worker could begin it."""
    monkeypatch.setattr(rp_scale, "JobScaler", rp_scale.JobScaler)  # put back afterwards
    deliveries = Deliveries()
    assert wake_on_events(1, deliveries)
    told, asked_for = list[str](), list[int]()
    made = {name: asyncio.Event() for name in ("first", "second")}
    taken = {name: asyncio.Event() for name in ("first", "second", "nothing")}
    waiting: list[dict[str, Any]] = [{"id": name, "input": {}} for name in made]
    delivered = asyncio.Event()

    async def take(_session: Any, count: int) -> list[dict[str, Any]]:
        asked_for.append(count)
        if not waiting:
            taken["nothing"].set()
            await delivered.wait()
            scaler.kill_worker()
            return []
        job = waiting.pop(0)
        told.append(f"{job['id']} taken")
        taken[job["id"]].set()
        return [job]

    async def handle(_session: Any, _config: Any, job: dict[str, Any]) -> None:
        await made[job["id"]].wait()
        told.append(f"{job['id']} made")
        deliveries.begin(job["id"])
        await (taken["second"] if job["id"] == "first" else taken["nothing"]).wait()
        told.append(f"{job['id']} delivered")
        if job["id"] == "second":
            delivered.set()

    scaler = rp_scale.JobScaler({"concurrency_modifier": lambda _: 2})
    scaler.jobs_handler = handle
    scaler.take_from_platform = take
    async with asyncio.timeout(30), asyncio.TaskGroup() as loops:
        loops.create_task(scaler.get_jobs(None))
        loops.create_task(scaler.run_jobs(None))
        await taken["first"].wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert told == ["first taken"]
        made["first"].set()
        await taken["second"].wait()
        made["second"].set()
    assert told == [
        "first taken", "first made", "second taken", "first delivered", "second made", "second delivered"
    ]  # fmt: skip
    assert set(asked_for) == {1}
    assert len(deliveries) == 0
