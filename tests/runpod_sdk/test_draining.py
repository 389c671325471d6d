"""Draining, against the SDK itself; tests/runpod/ has the whole of it."""

from __future__ import annotations

import asyncio

import pytest
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.worker_state import JobsProgress

from flux_engine.runpod_sdk.draining import GracefulStop


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
