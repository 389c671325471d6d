"""Mixed jobs by the official client on two workers: right or not, how long, and their progress as a client sees it.

python -m benchmarks.queue_mixed --jobs 100
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from PIL import Image

from benchmarks.fleet import fleet, quantile, table
from local_platform.job import Event, Job, Status
from local_platform.server import Platform

PROMPTS = ("a red sun on the left over purple mountains", "a white moon over a calm lake", "pine trees at dusk")
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
STAGES = ("queued", "loading", "lora", "text", "denoising", "decoding", "encoding", "uploading")
KINDS = ("picture", "two pictures", "long", "small", "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(measure(jobs=options.jobs, workers=options.workers, seed=options.seed))


async def measure(*, jobs: int, workers: int, seed: int) -> None:
    chance = random.Random(seed)
    orders = [mixed_order(chance, KINDS[i % len(KINDS)]) for i in range(jobs)]
    async with fleet(Platform(id_seed=seed), workers=workers) as running:
        ids = [await running.submit(job_input) for _, job_input in orders]
        done = await running.results(ids)
        await asyncio.sleep(2)  # for progress that comes too late, if any does
        done = [running.platform.endpoint.queue[job.id] for job in done]
    rows = []
    for kind in KINDS:
        members = [(order, job) for (found, order), job in zip(orders, done, strict=True) if found == kind]
        right = sum(is_right(order, job) for order, job in members)
        took = [(job.finished_at or 0) - (job.started_at or 0) for _, job in members]
        rows.append((kind, len(members), right, f"{quantile(took, 0.5):.2f}", f"{quantile(took, 0.95):.2f}"))
    print(table(("job", "number", "right", "median s", "95 % s"), rows), end="\n\n")
    print(progress_report(done))


def mixed_order(chance: random.Random, kind: str) -> tuple[str, dict[str, Any]]:
    """A kind of job and an input of it."""
    base: dict[str, Any] = {"prompt": chance.choice(PROMPTS), "output_format": chance.choice(tuple(FORMATS))}
    more: Mapping[str, dict[str, Any]] = {
        "picture": {"num_inference_steps": 4},
        "two pictures": {"num_inference_steps": 2, "num_images": 2},
        "long": {"num_inference_steps": 24, "width": 512, "height": 512},
        "small": {"num_inference_steps": 2, "width": 128, "height": 64},
        "refused": {"guidance_scale": 999},
    }
    return kind, base | more[kind]


def is_right(order: Mapping[str, Any], job: Job) -> bool:
    """Whether the one answer is the one that the input asks for."""
    if "guidance_scale" in order:
        return job.status is Status.FAILED and json.loads(str(job.result["error"]))["field"] == "guidance_scale"
    output = job.result.get("output")
    if job.status is not Status.COMPLETED or not isinstance(output, dict):
        return False
    pictures = [Image.open(io.BytesIO(b64decode(image["b64_json"]))) for image in output["images"]]
    size = (order.get("width", 256), order.get("height", 256))
    return len(pictures) == order.get("num_images", 1) and all(
        picture.size == size and picture.format == FORMATS[order["output_format"]] for picture in pictures
    )


def progress_report(jobs: Sequence[Job]) -> str:
    """What is to be said of the progress of all jobs together."""
    streams = [job.events_of("progress") for job in jobs]
    stages = Counter(stage_of(event) for stream in streams for event in stream)
    gaps = [
        later.at - earlier.at
        for stream in streams
        for earlier, later in pairwise(stream)
        if stage_of(earlier) == stage_of(later)
    ]
    rows = [
        ("updates", sum(len(stream) for stream in streams)),
        ("by stage", ", ".join(f"{stage} {stages[stage]}" for stage in STAGES if stages[stage])),
        ("jobs with a gap or a turn in `seq`", sum(not is_in_order(stream, "seq") for stream in streams)),
        ("jobs whose `progress` falls", sum(not is_in_order(stream, "progress") for stream in streams)),
        ("least seconds between two of a stage", f"{min(gaps):.2f}" if gaps else "no stage with two"),
        ("updates after the result", sum(len(job.events_of("late_progress")) for job in jobs)),
    ]
    return table(("progress", ""), rows)


def stage_of(event: Event) -> str:
    return str(event.detail["stage"]) if isinstance(event.detail, dict) else ""


def is_in_order(stream: Sequence[Event], name: str) -> bool:
    """Whether `name` never falls; `seq` has to rise by one from one on."""
    values = [event.detail[name] for event in stream if isinstance(event.detail, dict)]
    return values == (list(range(1, len(values) + 1)) if name == "seq" else sorted(values))


if __name__ == "__main__":
    main()
