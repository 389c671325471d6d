"""What streaming frames to the encoder is worth: `python -m benchmarks.video [--frames 24] [--side 256] [--steps 8]`.

One clip of the bundled model, made three ways, alternating, in one run: frames encoded while the next are made; all
frames made, then encoded by the same encoder; and what a user of diffusers would write, a loop over FluxPipeline with
a prompt a frame and `export_to_video` at the end. Then the peak memory, of the process and of ffmpeg, at 48 and at 480
frames of one step, each in a process of its own, and the most files seen in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flux_engine.build import build_models
from flux_engine.errors import InvalidInput
from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.sampling import Spent
from flux_engine.generate.video.film import film, spec_of
from flux_engine.generate.video.generator import VideoGenerator
from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.video import VideoJob
from flux_engine.media.video import VideoEncoder
from flux_engine.models.loaded import LoadedModel
from flux_engine.progress import Progress
from flux_engine.settings import Settings

PROMPTS = ("day, a large red sun on the left, hills", "day, a large red sun on the right, hills")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--format", default="mp4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-side", type=int, default=256)
    parser.add_argument("--only", choices=WAYS, help="make the clip once this way and print what it took, as JSON")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    asyncio.run(_compared(arguments) if arguments.only is None else _memory_of(arguments))


async def _compared(arguments: argparse.Namespace) -> None:
    """In a coroutine because Progress belongs to a loop."""
    model, job = _loaded(), _job(arguments)
    print(f"{job.num_frames} frames of {job.width}x{job.height}, {job.num_inference_steps} steps, {job.output_format};")
    print(f"{len(os.sched_getaffinity(0))} cores, {arguments.threads} thread for the model; seconds, median (all)")
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    _streamed(model, job)  # warm
    for _ in range(arguments.repeats):
        for way, make in WAYS.items():
            began = time.perf_counter()
            make(model, job)
            took[way].append(time.perf_counter() - began)
    for way, seconds in took.items():
        print(f"{way:>12} {statistics.median(seconds):8.2f}   ({', '.join(f'{s:.2f}' for s in seconds)})")
    print("\npeak memory in MB     process, above the model     ffmpeg   temporary files")
    for frames in (48, 480):
        for way in WAYS:
            seen = _in_a_process(way, frames, arguments)
            print(f"{way:>12} {frames:4d} {seen['process_mb']:28.1f} {seen['ffmpeg_mb']:10.0f} {seen['files']:17d}")


def _streamed(model: LoadedModel, job: VideoJob) -> int:
    return len(film(VideoGenerator(), model, job, Progress(None), Cancellation()).data)


def _then_encoded(model: LoadedModel, job: VideoJob) -> int:
    frames = list(VideoGenerator().frames(model, job, Progress(None), Cancellation(), spent=Spent()))
    with VideoEncoder(spec_of(job)) as encoder:
        for frame in frames:
            encoder.write(frame)
        return len(encoder.finish())


def _by_diffusers(model: LoadedModel, job: VideoJob) -> int:
    import torch
    from diffusers.utils import export_to_video

    images = []
    for i in range(job.num_frames):
        made = model.pipeline(
            prompt=PROMPTS[2 * i >= job.num_frames],
            width=job.width,
            height=job.height,
            num_inference_steps=job.num_inference_steps,
            guidance_scale=job.guidance_scale,
            max_sequence_length=job.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(job.seed),
        )
        images.append(made.images[0])
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        export_to_video(images, file.name, fps=round(job.fps))
        return os.path.getsize(file.name)


WAYS: dict[str, Callable[[LoadedModel, VideoJob], int]] = {
    "streamed": _streamed,
    "then encoded": _then_encoded,
    "diffusers": _by_diffusers,
}


def _loaded() -> LoadedModel:
    models = build_models(Settings.from_environment({}))
    return models.load(models.served.default())


def _job(arguments: argparse.Namespace) -> VideoJob:
    models = build_models(Settings.from_environment({}))
    context = ParseContext(
        default_model=lambda: models.served.default().limits,
        find_model=models.served.find_limits,
        served_models=models.served.ids(),
        default_response_format="b64_json",
        can_return_urls=False,
        max_video_work=float("inf"),
    )
    fields: dict[str, Any] = {
        "keyframes": {"0": PROMPTS[0], str(arguments.frames - 1): PROMPTS[1]},
        "num_frames": arguments.frames,
        "width": arguments.side,
        "height": arguments.side,
        "num_inference_steps": arguments.steps,
        "output_format": arguments.format,
        "seed": 3,
    }
    job = parse_job(Request(id="benchmark", input=fields), context)
    if not isinstance(job, VideoJob):
        raise InvalidInput("not a video")
    return job


def _in_a_process(way: str, frames: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One clip of `frames` frames in a fresh process with an empty folder for temporary files."""
    options = ["--frames", str(frames), "--side", str(arguments.memory_side), "--steps", "1", "--only", way]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.video", *options],
            env=os.environ | {"TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        most = 0
        while process.poll() is None:
            most = max(most, len(list(Path(folder).rglob("*"))))
            time.sleep(0.02)
        assert process.stdout is not None
        seen: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
        return seen | {"files": most}


async def _memory_of(arguments: argparse.Namespace) -> None:
    print(json.dumps(_peaks(_loaded(), _job(arguments), WAYS[arguments.only])))


def _peaks(model: LoadedModel, job: VideoJob, make: Callable[[LoadedModel, VideoJob], int]) -> dict[str, float]:
    """Peaks while the clip is made: what loading the model took is forgotten first."""
    Path("/proc/self/clear_refs").write_text("5")
    began_with = _peak_mb("self")
    encoders: list[float] = [0.0]
    ended = threading.Event()
    watch = threading.Thread(target=_watch_encoders, args=(encoders, ended))
    watch.start()
    make(model, job)
    ended.set()
    watch.join()
    return {"process_mb": _peak_mb("self") - began_with, "ffmpeg_mb": max(encoders)}


def _watch_encoders(peaks: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.05):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):
                name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
                if "ffmpeg" in name and int(rest.split()[1]) == os.getpid():
                    peaks.append(_peak_mb(stat.parent.name))


def _peak_mb(process: str) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
