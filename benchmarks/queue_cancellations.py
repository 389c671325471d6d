"""Cancelling at a random step of a long job: how soon the GPU is free, and whether the next job is any different.

python -m benchmarks.queue_cancellations --times 50
"""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import Any

from benchmarks.fleet import Fleet, fleet, picture_hash, quantile, table
from local_platform.job import Job, Status
from local_platform.server import Platform

LONG = {"prompt": "a white moon over a calm lake", "num_inference_steps": 50, "cache": False}
NEXT = {"prompt": "a red sun on the left over purple mountains", "num_inference_steps": 2, "seed": 7, "cache": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(measure(times=options.times, chance=random.Random(options.seed)))


async def measure(*, times: int, chance: random.Random) -> None:
    heard = Moments()
    async with fleet(Platform(), workers=1, on_line=heard.on_line) as running:
        fresh = picture_hash(await running.run(NEXT))
        step_s = seconds_a_step(await running.run(LONG))
        delays_s: list[float] = []
        is_same = 0
        while len(delays_s) < times:
            delay_s = await cancelled(running, heard, after_s=chance.uniform(0, 45 * step_s))
            if delay_s is None:
                continue  # it was done first
            delays_s.append(delay_s)
            is_same += picture_hash(await running.run(NEXT)) == fresh
    rows = [
        ("cancelled", times),
        ("one step, ms", f"{step_s * 1000:.0f}"),
        ("from the stop signal to a free GPU, ms: median", f"{quantile(delays_s, 0.5) * 1000:.0f}"),
        ("most, ms", f"{max(delays_s) * 1000:.0f}"),
        ("in steps: median", f"{quantile(delays_s, 0.5) / step_s:.2f}"),
        ("in steps: most", f"{max(delays_s) / step_s:.2f}"),
        ("next picture as in a fresh process", f"{is_same} of {times}"),
    ]
    print(table(("cancellation", ""), rows))


async def cancelled(running: Fleet, heard: Moments, *, after_s: float) -> float | None:
    """Start a long job, cancel it `after_s` seconds into its steps, and give the seconds until its task has ended.

    None where the job was done before it could be stopped.
    """
    endpoint = running.platform.endpoint
    job_id = await running.submit(LONG)
    await endpoint.until(lambda: denoises(endpoint.queue[job_id]))
    await asyncio.sleep(after_s)
    if endpoint.cancel(job_id).status is not Status.CANCELLED:
        return None
    await endpoint.until(lambda: heard.is_over(job_id) or bool(endpoint.queue[job_id].events_of("late_result")))
    return heard.delay_s(job_id) if heard.is_over(job_id) else None


class Moments:
    """When the SDK said that it passes a stop signal on, and that the job's task has ended."""

    def __init__(self) -> None:
        self._stopping: dict[str, float] = {}
        self._stopped: dict[str, float] = {}

    def on_line(self, _worker: str, line: str) -> None:
        now = asyncio.get_running_loop().time()
        for said, moments in (("Stopping job.", self._stopping), ("Job stopped.", self._stopped)):
            if said in line:
                moments[line.partition('"requestId": "')[2].partition('"')[0]] = now

    def is_over(self, job_id: str) -> bool:
        return job_id in self._stopped

    def delay_s(self, job_id: str) -> float:
        return self._stopped[job_id] - self._stopping[job_id]


def seconds_a_step(job: Job) -> float:
    output: Any = job.result["output"]
    return float(output["timings"]["denoise_ms"]) / 1000 / int(output["parameters"]["num_inference_steps"])


def denoises(job: Job) -> bool:
    """Whether the job has begun with its steps."""
    updates = [event.detail for event in job.events_of("progress")]
    return any(isinstance(update, dict) and update["stage"] == "denoising" for update in updates)


if __name__ == "__main__":
    main()
