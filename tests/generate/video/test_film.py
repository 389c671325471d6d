"""A video job, start to finish, with the bundled model: what a client gets, and what is left when it goes wrong."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageSequence

from flux_engine.build import build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.models.manager import FluxModelManager
from flux_engine.progress import Update
from flux_engine.results.result import timeout_warning
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker
from tests.waiting import PATIENCE_S

QUICK = {
    "prompt": "a red sun on the left, a lake, day",
    "num_inference_steps": 2,
    "width": 64,
    "height": 64,
    "num_frames": 6,
    "seed": 7,
}


def job(identity: str = "job-1", **fields: Any) -> dict[str, Any]:
    return {"id": identity, "input": {**QUICK, **fields}}


def video_of(result: dict[str, Any]) -> bytes:
    assert "error" not in result, result
    return base64.b64decode(result["video"]["b64_json"])


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(result["error"])
    return error


async def test_a_video_job_gives_the_contracts_result(worker: Worker) -> None:
    result = await worker.run(job(fps=12, format="webp", metadata={"order": 5}))
    data = video_of(result)
    said = {name: value for name, value in result["video"].items() if name not in ("b64_json", "sha256")}
    assert said == {
        "content_type": "image/webp", "width": 64, "height": 64, "fps": 12.0, "num_frames": 6, "duration": 0.5,
        "seed": 7, "bytes": len(data),
    }  # fmt: skip
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 6
    thumbnail = Image.open(io.BytesIO(base64.b64decode(result["thumbnail"]["b64_json"])))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (64, 64))
    assert set(result["thumbnail"]) == {"b64_json"}
    assert result["parameters"]["keyframes"][1] == {"frame": 5, "prompt": QUICK["prompt"], "seed": 8}
    assert (result["seed"], result["cached"], result["metadata"]) == (7, False, {"order": 5})
    assert result["timings"]["denoise_ms"] > 0
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("fields", [{}, {"format": "webm"}, {"mode": "feedback", "motion": {"zoom": 1.05}}])
async def test_the_same_job_again_comes_from_the_cache_byte_for_byte(worker: Worker, fields: dict[str, Any]) -> None:
    first = await worker.run(job("one", **fields))
    again = await worker.run(job("two", **fields))
    made_again = await worker.run(job("three", cache=False, **fields))
    assert [result["cached"] for result in (first, again, made_again)] == [False, True, False]
    assert video_of(first) == video_of(again) == video_of(made_again)


async def test_progress_counts_frames_and_shows_the_latest(worker: Worker) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    await worker.run(job(preview=True, cache=False), send, min_interval_s=0)
    stages = list(dict.fromkeys(update["stage"] for update in updates))
    assert [stage for stage in stages if stage != "uploading"][-1] == "encoding"  # the last may be over too soon
    assert [u["progress"] for u in updates] == sorted(u["progress"] for u in updates)
    counted = [update for update in updates if "frame" in update]
    frames = [update["frame"] for update in counted]
    assert frames == sorted(frames)
    assert (frames[-1], counted[-1]["total_frames"]) == (6, 6)
    previews = [update["preview"] for update in updates if "preview" in update]
    assert Image.open(io.BytesIO(base64.b64decode(previews[-1].partition(",")[2]))).size == (64, 64)
    assert all(update["eta_seconds"] >= 0 for update in updates if "frame" in update)


@pytest.mark.parametrize("mode", ["interpolate", "feedback"])
async def test_no_preview_comes_unasked(worker: Worker, mode: str) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    await worker.run(job(mode=mode, cache=False), send, min_interval_s=0)
    assert any("frame" in update for update in updates)
    assert not any("preview" in update for update in updates)


async def test_frames_per_second_that_are_not_made_are_interpolated(worker: Worker) -> None:
    result = await worker.run(job(num_frames=9, fps=12, generated_fps=6, format="webp"))
    assert result["video"]["num_frames"] == 9
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(video_of(result)))))) == 9


async def test_ffmpeg_killed_half_way_is_an_error_and_the_next_job_is_right(
    worker: Worker, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that kills itself, since the last frame may be written before a test has found and killed it."""
    before = video_of(await worker.run(job(cache=False)))
    killed = tmp_path / "ffmpeg"
    killed.write_text(f"#!/bin/sh\n{shutil.which('head')} -c 30000 > /dev/null\nkill -9 $$\n")
    killed.chmod(0o700)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(killed))
    error = error_of(await worker.run(job(num_frames=48, cache=False)))
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    assert (error["code"], error["retryable"]) == ("internal", True)
    assert "ffmpeg" not in error["message"]
    assert "ffmpeg ended early with status -9" in caplog.text
    assert _ffmpegs() == []
    assert video_of(await worker.run(job(cache=False))) == before


async def test_a_video_cancelled_at_any_frame_leaves_no_ffmpeg_and_the_next_is_right(worker: Worker) -> None:
    before = video_of(await worker.run(job(cache=False)))
    for frame in random.Random(1).sample(range(1, 24), 3):
        reached = asyncio.Event()

        async def send(update: Update, frame: int = frame, reached: asyncio.Event = reached) -> None:
            if update.get("frame", 0) >= frame:
                reached.set()

        running = asyncio.create_task(worker.run(job(num_frames=48, cache=False), send, min_interval_s=0))
        await asyncio.wait_for(reached.wait(), PATIENCE_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert _ffmpegs() == []
    assert video_of(await worker.run(job(cache=False))) == before


async def test_a_video_cancelled_while_it_is_encoded_does_not_wait_for_ffmpeg(worker: Worker) -> None:
    """ffmpeg is held where it stands, as one that has minutes of frames before it; the pipe takes these four."""
    before = video_of(await worker.run(job(cache=False)))
    is_encoding = asyncio.Event()

    async def hold(update: Update) -> None:
        if update["stage"] == "denoising":
            for pid in _ffmpegs():
                os.kill(pid, signal.SIGSTOP)
        if update["stage"] == "encoding":
            is_encoding.set()

    running = asyncio.create_task(worker.run(job(num_frames=4, cache=False), hold, min_interval_s=0))
    await asyncio.wait_for(is_encoding.wait(), PATIENCE_S)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=PATIENCE_S)
    assert done == {running}
    assert running.cancelled()
    assert _ffmpegs() == []
    assert video_of(await worker.run(job(cache=False))) == before


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"model": "FLUX.2-dev", "num_inference_steps": 4}, "model", "images only"),
        ({"mode": "feedback", "image": "bm90IGEgcGljdHVyZQ=="}, "image", "PNG, JPEG, WebP or GIF"),
        ({"num_images": 2}, "num_images", "image job"),
    ],
)
async def test_what_no_video_can_be_made_of_is_refused(
    worker: Worker, fields: dict[str, Any], field: str, said: str
) -> None:
    error = error_of(await worker.run(job(**fields)))
    assert (error["code"], error["field"]) == ("invalid_input", field)
    assert said in error["message"]


async def test_the_operator_bounds_a_videos_work(warm: tuple[FluxModelManager, GpuThread], tmp_path: Path) -> None:
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path), "MAX_VIDEO_WORK": "0.04"})
    models, gpu = warm
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    error = error_of(await worker.run(job()))
    await worker.close()
    assert error["field"] == "num_frames"
    assert "bound is 0.04" in error["message"]


@pytest.mark.parametrize(("took_s", "is_said"), [(1, False), (359, False), (361, True)])
def test_a_video_near_the_platforms_time_out_says_so(took_s: float, is_said: bool) -> None:
    assert [("executionTimeout" in warning) for warning in timeout_warning(took_s)] == [True] * is_said


def _ffmpegs() -> list[int]:
    """Process ids of this process's ffmpegs, ended but unwaited ones included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if "ffmpeg" in name and int(rest.split()[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found
