"""Jobs while workers are killed and connections reset: does every one end with the picture of an undisturbed run?

python -m benchmarks.queue_kills --jobs 300 --kills 20 --resets 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

from benchmarks.fleet import Fleet, fleet, picture_hash, table
from local_platform.faults import FaultPlan
from local_platform.job import Job, Limits, Status
from local_platform.server import Platform

ORDER = {"prompt": "a red sun on the left over purple mountains", "num_inference_steps": 2, "width": 128, "height": 128}
LEASE_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--resets", type=float, default=0.1, help="share of requests whose connection is reset")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=argparse.FileType("w"), help="file for what the workers print")
    parser.add_argument("--storm-only", action="store_true", help="leave out the undisturbed run")
    options = parser.parse_args()
    asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    began = time.monotonic()
    calm = [] if options.storm_only else await all_jobs(Platform(id_seed=options.seed), options, kills=0)
    calm_s = time.monotonic() - began
    faults = FaultPlan(rates={"reset": options.resets / 2, "lost_answer": options.resets / 2}, seed=options.seed)
    platform = Platform(id_seed=options.seed, faults=faults, limits=Limits(lease_s=LEASE_S))
    began = time.monotonic()
    stormy = await all_jobs(platform, options, kills=options.kills)
    stormy_s = time.monotonic() - began

    expected = {job.id: picture_hash(job) for job in calm}
    same = sum(picture_hash(job) is not None and picture_hash(job) == expected.get(job.id) for job in stormy)
    rows = [
        ("jobs", len(calm), len(stormy)),
        ("COMPLETED", *(sum(job.status is Status.COMPLETED for job in jobs) for jobs in (calm, stormy))),
        ("same picture as undisturbed", "", same),
        ("workers killed", 0, options.kills),
        ("connections reset", 0, sum(platform.faults.counts.values())),
        ("jobs run more than once", *(sum(job.attempts > 1 for job in jobs) for jobs in (calm, stormy))),
        ("most attempts", *(max((job.attempts for job in jobs), default=0) for jobs in (calm, stormy))),
        ("results after the first", *(sum(len(j.events_of("late_result")) for j in js) for js in (calm, stormy))),
        ("progress after the result", *(sum(len(j.events_of("late_progress")) for j in js) for js in (calm, stormy))),
        ("seconds", round(calm_s), round(stormy_s)),
    ]
    print(table(("", "undisturbed", "disturbed"), rows))


async def all_jobs(platform: Platform, options: argparse.Namespace, *, kills: int) -> list[Job]:
    """Run the jobs to their ends, killing a random worker `kills` times on the way."""

    def record(worker: str, line: str) -> None:
        if options.log is not None:
            print(f"{time.monotonic():.2f} {worker} {line}", file=options.log, flush=True)

    async with fleet(platform, workers=options.workers, on_line=record) as running:
        ids = [await running.submit(ORDER) for _ in range(options.jobs)]
        killer = asyncio.create_task(kill(running, kills, jobs=options.jobs, chance=random.Random(options.seed)))
        await running.results(ids)
        await killer
        return [platform.endpoint.queue[job_id] for job_id in ids]


async def kill(running: Fleet, kills: int, *, jobs: int, chance: random.Random) -> None:
    """Kill a worker each time that a further share of the jobs is done, a random moment later."""
    for i in range(kills):
        await until_completed(running, jobs * i // (kills + 1))
        await asyncio.sleep(chance.uniform(0, 1))
        await running.pool.replace(chance.choice(running.pool.workers))


async def until_completed(running: Fleet, number: int) -> None:
    endpoint = running.platform.endpoint
    await endpoint.until(lambda: endpoint.queue.counts()["completed"] >= number, timeout_s=3_600)


if __name__ == "__main__":
    main()
