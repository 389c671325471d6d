"""What is laid over the SDK's loop, against the SDK itself; tests/runpod/ has the whole of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.worker_state import JobsProgress

from flux_engine.runpod_sdk import GracefulStop, Unprinted, wake_on_events


async def test_no_job_is_asked_for_once_the_end_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is given up at once may have been answered: that job would wait for its lease to run out."""
    asked: list[str] = []

    async def take() -> list[str]:
        asked.append("a job")
        await asyncio.sleep(0)
        return asked

    monkeypatch.setattr(rp_scale, "get_job", take)
    stop, in_hand = GracefulStop(), JobsProgress()
    assert stop.install()
    assert await rp_scale.get_job() == ["a job"]
    in_hand.add("in hand")  # which the end waits for
    try:
        stop.begin("a test")
        assert await rp_scale.get_job() is None
        assert asked == ["a job"]
        assert stop.concurrency(2) == 1
    finally:
        ending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        in_hand.remove("in hand")


async def test_jobs_begin_and_follow_one_another_without_a_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the SDK's own looks would cost a tenth of a second or a whole one: 200 jobs would take minutes."""
    monkeypatch.setattr(rp_scale, "JobScaler", rp_scale.JobScaler)  # put back afterwards
    assert wake_on_events()
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


def test_a_result_is_not_written_out_for_a_log_that_nobody_reads() -> None:
    result = Unprinted({"images": [{"b64_json": "A" * 100}], "cached": True})
    assert f"{result}" == "<result with images, cached>"
    assert json.loads(json.dumps(result)) == {"images": [{"b64_json": "A" * 100}], "cached": True}
