"""Many jobs in one worker: resident memory on the way.

    python -m benchmarks.queue_memory --jobs 1000

Several jobs are in flight at once, because the SDK looks for the next one only once a second.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from benchmarks.fleet import fleet, table
from local_platform.job import Status
from local_platform.server import Platform

IN_FLIGHT = "8"
WARM_UP_JOBS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    asyncio.run(measure(jobs=options.jobs))


async def measure(*, jobs: int) -> None:
    marks = sorted({WARM_UP_JOBS, jobs // 10, jobs // 2, jobs})
    rows, done, completed = [], 0, 0
    async with fleet(Platform(), workers=1, environment={"WORKER_CONCURRENCY": IN_FLIGHT}) as running:
        began = time.monotonic()
        for mark in marks:
            ids = [await running.submit(order(i)) for i in range(done, mark)]
            completed += sum(job.status is Status.COMPLETED for job in await running.results(ids))
            done = mark
            resident = running.pool.workers[0].resident_bytes()
            rows.append((done, completed, f"{resident / 1e6:.0f}", f"{time.monotonic() - began:.0f}"))
    print(table(("jobs", "COMPLETED", "resident MB", "seconds"), rows))


def order(i: int) -> dict[str, object]:
    """No two alike: prompts, sizes and seeds differ."""
    side = (64, 96, 128)[i % 3]
    return {"prompt": f"a red sun, number {i}", "num_inference_steps": 1, "width": side, "height": side, "seed": i}


if __name__ == "__main__":
    main()
