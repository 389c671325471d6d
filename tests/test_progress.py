"""Progress as the platform gets it: in order, throttled, never after the end, never in the way."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from flux_engine.progress import Progress, Stage, Update

BEFORE: tuple[Stage, ...] = ("queued", "loading", "text", "denoising")
AFTER: tuple[Stage, ...] = ("decoding", "encoding", "uploading")


class Platform:
    """Takes updates, slowly or not at all."""

    def __init__(self, *, delay_s: float = 0.0, fails: bool = False) -> None:
        self.updates: list[Update] = []
        self.at: list[float] = []
        self.has_come = asyncio.Event()
        self._delay_s, self._fails = delay_s, fails

    async def send(self, update: Update) -> None:
        await asyncio.sleep(self._delay_s)
        if self._fails:
            raise ConnectionResetError
        self.updates.append(update)
        self.at.append(time.monotonic())
        self.has_come.set()


async def run_job(progress: Progress, *, steps: int = 40, step_s: float = 0.01) -> None:
    for stage in BEFORE:
        progress.stage(stage)
        await asyncio.sleep(step_s)
    for step in range(1, steps + 1):
        await asyncio.to_thread(progress.step, step, steps)
        await asyncio.sleep(step_s)
    for stage in AFTER:
        progress.stage(stage)
        await asyncio.sleep(step_s)
    await progress.close()


async def test_updates_are_in_order_and_never_fall() -> None:
    platform = Platform()
    await run_job(Progress(platform.send, min_interval_s=0.1))
    stages = [u["stage"] for u in platform.updates]
    assert list(dict.fromkeys(stages)) == [*BEFORE, *AFTER]
    assert [u["seq"] for u in platform.updates] == list(range(1, len(stages) + 1))
    shares = [u["progress"] for u in platform.updates]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    steps = [u for u in platform.updates if "step" in u]
    assert all(u["eta_seconds"] >= 0 and u["total_steps"] == 40 for u in steps)


async def test_within_a_stage_updates_keep_their_distance() -> None:
    platform = Platform()
    await run_job(Progress(platform.send, min_interval_s=0.2))
    pairs = zip(platform.updates, platform.updates[1:], platform.at, platform.at[1:], strict=False)
    gaps = [after - before for one, other, before, after in pairs if one["stage"] == other["stage"]]
    assert gaps
    assert min(gaps) > 0.15


async def test_nothing_leaves_after_close() -> None:
    platform = Platform()
    progress = Progress(platform.send, min_interval_s=0.01)
    await run_job(progress)
    count = len(platform.updates)
    progress.stage("denoising")
    progress.step(1, 2)
    await asyncio.sleep(0.1)
    assert len(platform.updates) == count


async def test_a_platform_that_hangs_or_resets_cannot_hold_a_job_up() -> None:
    hanging = Platform(delay_s=60)
    began = time.monotonic()
    await run_job(Progress(hanging.send))
    assert time.monotonic() - began < 30
    assert hanging.updates == []
    await run_job(Progress(Platform(fails=True).send))


NO_PROGRESS: list[Any] = ["x", None, True, [], math.nan, math.inf, -1, 2, 10**400]


@pytest.mark.parametrize("reached", NO_PROGRESS)
@pytest.mark.parametrize("stage", ["denoising", "lunch", [], {}, None])
async def test_what_a_twin_says_that_is_no_progress_is_dropped(stage: Any, reached: Any) -> None:
    platform = Platform()
    progress = Progress(platform.send, min_interval_s=0)
    progress.relay({"stage": stage, "progress": reached})
    progress.relay({})
    progress.relay(
        {"stage": "denoising", "progress": 0.5, "step": 3, "eta_seconds": math.nan, "frame": [], "more": "x"}
    )
    async with asyncio.timeout(20):
        await platform.has_come.wait()
    await progress.close()
    assert platform.updates == [{"stage": "denoising", "progress": 0.5, "step": 3, "seq": 1}]


async def test_without_a_platform_nothing_is_sent() -> None:
    progress = Progress(None)
    await run_job(progress, steps=2)
    assert not progress.wants_preview()
