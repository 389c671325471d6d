"""Draining, against the SDK itself; tests/runpod/ has the whole of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.worker_state import JobsProgress

from flux_engine.runpod_sdk.draining import GracefulStop
from flux_engine.runpod_sdk.scaler import wake_on_events

LAST = {"id": "last", "input": {}}


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


@pytest.mark.parametrize("is_woken", [False, True])
def test_a_job_that_arrives_as_the_end_begins_is_done(monkeypatch: pytest.MonkeyPatch, is_woken: bool) -> None:
    done: list[str] = []

    async def take(*_: Any) -> list[dict[str, Any]]:
        stop.begin("a test")
        return [LAST]

    async def handle(_session: Any, _config: Any, job: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        done.append(job["id"])

    async def work() -> None:
        scaler = rp_scale.JobScaler({"concurrency_modifier": lambda _: stop.concurrency(2)})
        scaler.jobs_handler = handle
        await asyncio.gather(scaler.get_jobs(None), scaler.run_jobs(None))

    monkeypatch.setattr(rp_scale, "get_job", take)
    monkeypatch.setattr(rp_scale, "JobScaler", rp_scale.JobScaler)  # put back afterwards
    stop = GracefulStop()
    assert not is_woken or wake_on_events(2)
    assert stop.install()
    with contextlib.suppress(asyncio.CancelledError):  # the end
        asyncio.run(work())
    assert done == ["last"]


async def test_a_job_that_arrives_with_the_sdks_time_out_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take() -> list[dict[str, Any]]:
        asyncio.get_running_loop().call_soon(taking.cancel)
        return [LAST]

    monkeypatch.setattr(rp_scale, "get_job", take)
    assert GracefulStop().install()
    taking = asyncio.ensure_future(rp_scale.get_job())
    assert await taking == [LAST]
