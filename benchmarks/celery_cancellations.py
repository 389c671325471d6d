"""Cancelling at a random step over Celery: how many steps until the GPU is free, and whether the next picture differs.

    python -m benchmarks.celery_cancellations --times 50

The time runs from the call to CeleryQueue.cancel to the record that says `cancelled`, which the worker writes once its
GPU thread is free.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fleet import quantile, table
from flux_engine.cache.embedded import EmbeddedServer
from flux_engine.queues.celery import CeleryQueue
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.job_queue import QueuedJob, Report
from local_platform.behind import behind

# Seconds on any machine: progress is told once a second.
LONG = {
    "prompt": "a white moon over a calm lake",
    "width": 512,
    "height": 512,
    "num_inference_steps": 50,
    "cache": False,
    "seed": 1,
}
NEXT = {"prompt": "a red sun on the left over purple mountains", "num_inference_steps": 2, "seed": 7, "cache": False}
STEPS = 50
LOOK_S = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(asyncio.run(measure(times=options.times, chance=random.Random(options.seed))))


async def measure(*, times: int, chance: random.Random) -> str:
    with tempfile.TemporaryDirectory(prefix="celery-") as name:
        redis = EmbeddedServer(Path(name) / "redis")
        try:
            environment = {"REDIS_URL": await redis.url(), "MODEL_VOLUME": name, "OMP_NUM_THREADS": "1"}
            async with behind("celery", environment, folder=Path(name)) as system:
                await system.pool.start(1)
                queue = CeleryQueue(CelerySettings.from_environment({**environment, **system.variables}))
                rows = await cancellations(queue, times=times, chance=chance)
                await queue.close()
        finally:
            redis.close()
    return table(("cancellation over Celery", ""), rows)


async def cancellations(queue: CeleryQueue, *, times: int, chance: random.Random) -> list[tuple[str, object]]:
    fresh = picture_hash(await ran(queue, NEXT))
    await ran(queue, LONG)
    step_s = seconds_a_step(await ran(queue, LONG))  # once it is as quick as it gets
    delays_s: list[float] = []
    at_steps: set[int] = set()
    same = 0
    while len(delays_s) < times:
        ticket = await queue.submit(QueuedJob(id=f"long-{len(delays_s)}", input=LONG))
        await until(queue, ticket, lambda report: bool(report.progress and report.progress.get("step")))
        step = chance.randrange(1, STEPS - 2)
        await asyncio.sleep(step * step_s)
        began = time.monotonic()
        if (await queue.cancel(ticket)).state != "running":
            continue  # it was done first
        if (await until(queue, ticket, has_ended)).state != "cancelled":
            continue
        delays_s.append(time.monotonic() - began)
        at_steps.add(step)
        same += picture_hash(await ran(queue, NEXT)) == fresh
    return [
        ("cancelled, at so many different steps", f"{times}, {len(at_steps)}"),
        ("one step, ms", f"{step_s * 1000:.0f}"),
        ("from the call to a free GPU, ms: median", f"{quantile(delays_s, 0.5) * 1000:.0f}"),
        ("most, ms", f"{max(delays_s) * 1000:.0f}"),
        ("in steps: median", f"{quantile(delays_s, 0.5) / step_s:.2f}"),
        ("in steps: most", f"{max(delays_s) / step_s:.2f}"),
        ("next picture with the bytes of a fresh process", f"{same} of {times}"),
    ]


async def ran(queue: CeleryQueue, fields: dict[str, Any]) -> Report:
    ticket = await queue.submit(QueuedJob(id="next", input=fields))
    return await until(queue, ticket, has_ended)


async def until(queue: CeleryQueue, ticket: str, is_so: Any) -> Report:
    while not (is_so(report := await queue.status(ticket)) or has_ended(report)):
        await asyncio.sleep(LOOK_S)
    return report


def has_ended(report: Report) -> bool:
    return report.state not in ("queued", "running")


def picture_hash(report: Report) -> str | None:
    if report.output is None:
        return None
    return hashlib.sha256(base64.b64decode(report.output["images"][0]["b64_json"])).hexdigest()


def seconds_a_step(report: Report) -> float:
    assert report.output is not None, report
    return float(report.output["timings"]["denoise_ms"]) / 1000 / STEPS


if __name__ == "__main__":
    main()
