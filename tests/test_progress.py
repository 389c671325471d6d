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
    """Takes updates, or refuses them."""

    def __init__(self, *, fails: bool = False) -> None:
        self.updates: list[Update] = []
        self.at: list[float] = []
        self._fails = fails
        self._news = asyncio.Event()

    async def send(self, update: Update) -> None:
        if self._fails:
            raise ConnectionResetError
        self.updates.append(update)
        self.at.append(time.monotonic())
        self._news.set()

    async def until(self, **expected: object) -> None:
        """Wait for an update that holds `expected`."""
        while not any(expected.items() <= update.items() for update in self.updates):
            self._news.clear()
            await self._news.wait()


async def run_job(progress: Progress, platform: Platform | None = None, *, steps: int = 40) -> None:
    """A whole job; each stage lasts until `platform` has heard of it."""
    for stage in BEFORE:
        await enter(stage, progress, platform)
    for step in range(1, steps + 1):
        await asyncio.to_thread(progress.step, step, steps)
        await asyncio.sleep(0.01)
    for stage in AFTER:
        await enter(stage, progress, platform)
    await progress.close()


async def enter(stage: Stage, progress: Progress, platform: Platform | None) -> None:
    progress.stage(stage)
    if platform is not None:
        await platform.until(stage=stage)


async def test_updates_are_in_order_and_never_fall() -> None:
    platform = Platform()
    await run_job(Progress(platform.send, min_interval_s=0.1), platform)
    stages = [u["stage"] for u in platform.updates]
    assert list(dict.fromkeys(stages)) == [*BEFORE, *AFTER]
    assert [u["seq"] for u in platform.updates] == list(range(1, len(stages) + 1))
    shares = [u["progress"] for u in platform.updates]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    steps = [u for u in platform.updates if "step" in u]
    assert all(u["eta_seconds"] >= 0 and u["total_steps"] == 40 for u in steps)


async def test_within_a_stage_updates_keep_their_distance() -> None:
    platform, began = Platform(), time.monotonic()
    await run_job(Progress(platform.send, min_interval_s=0.1), platform)
    arrived = [at for update, at in zip(platform.updates, platform.at, strict=True) if update["stage"] == "denoising"]
    assert len(arrived) > 1
    assert arrived[-1] - began > 0.1 * (len(arrived) - 1)


async def test_nothing_leaves_after_close() -> None:
    platform = Platform()
    progress = Progress(platform.send, min_interval_s=0.01)
    await run_job(progress, platform)
    count = len(platform.updates)
    progress.stage("denoising")
    progress.step(1, 2)
    assert asyncio.all_tasks() == {asyncio.current_task()}  # nobody is left to send anything
    assert len(platform.updates) == count


async def test_a_platform_that_hangs_or_resets_cannot_hold_a_job_up() -> None:
    async def hang(_update: Update) -> None:
        await asyncio.Event().wait()

    failing = Platform(fails=True)
    async with asyncio.timeout(60):
        await run_job(Progress(hang, close_within_s=0.1))
        await run_job(Progress(failing.send))
    assert asyncio.all_tasks() == {asyncio.current_task()}


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
    await platform.until(stage="denoising")
    await progress.close()
    assert platform.updates == [{"stage": "denoising", "progress": 0.5, "step": 3, "seq": 1}]


async def test_a_job_that_is_over_at_once_posts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_engine.progress.QUIET_S", 60.0)  # however long the machine takes for it
    platform = Platform()
    progress = Progress(platform.send)
    progress.stage("queued")
    await asyncio.sleep(0)
    await progress.close()
    assert platform.updates == []


async def test_a_job_that_waits_says_so() -> None:
    platform = Platform()
    progress = Progress(platform.send)
    progress.stage("queued")
    await platform.until(stage="queued")
    await progress.close()
    assert [update["stage"] for update in platform.updates] == ["queued"]


async def test_without_a_platform_nothing_is_sent() -> None:
    progress = Progress(None)
    await run_job(progress, steps=2)
    assert not progress.wants_preview()
