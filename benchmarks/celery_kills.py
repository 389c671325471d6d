"""A Celery worker killed in the middle of a job: how soon another worker is at it again, and with what result.

    python -m benchmarks.celery_kills --times 10

Each time two workers are up, one of them paints, and it is killed (SIGKILL) at a random step. Counted is the time from
the kill until the other worker has begun the task again, which the gateway's ledger brings about.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import Any

from benchmarks.fleet import quantile, table
from benchmarks.system import System, system
from flux_engine.queues.celery import job_records, line_of
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.records import JobRecords
from local_platform.processes import WorkerProcess

LONG = {"prompt": "a white moon over a calm lake", "num_inference_steps": 50, "num_images": 4, "cache": False}
WANTED_S = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = asyncio.run(measure(times=options.times, chance=random.Random(options.seed)))
    print(table(("a killed Celery worker's task", ""), rows))


async def measure(*, times: int, chance: random.Random) -> list[tuple[str, object]]:
    async with system("celery", workers=2) as running:
        records = job_records(CelerySettings.from_environment(running.environment))
        again_s: list[float] = []
        same = 0
        for number in range(times):
            fields = {**LONG, "seed": number}
            fresh = await made(running, **fields) if number == 0 else None
            task_id = await running.create(**fields)
            said = await until_painting(running, task_id, step=chance.randrange(2, 45))
            if said["status"] != "processing":
                continue
            again_s.append(await killed(running, records, task_id))
            ended = await running.until(task_id, "completed", "failed", "cancelled")
            same += ended["status"] == "completed" and (fresh is None or hashes(ended) == fresh)
        await records.redis.aclose()
    return [
        ("killed", len(again_s)),
        ("begun again after, s: median", f"{quantile(again_s, 0.5):.1f}"),
        ("most, s", f"{max(again_s):.1f}"),
        (f"within {WANTED_S:g} s", f"{sum(each <= WANTED_S for each in again_s)} of {len(again_s)}"),
        ("completed, the first with the bytes of an undisturbed run", f"{same} of {len(again_s)}"),
    ]


async def killed(running: System, records: JobRecords, task_id: str) -> float:
    """Kill the worker of `task_id`; the seconds until another has begun it. The worker is then replaced."""
    first = await ticket_of(running, task_id)
    name = await records.redis.hget(f"flux:{running.environment['CACHE_NAMESPACE']}:celery:job:{first}", "worker")
    worker = process_named(running, str(name))
    began = time.monotonic()
    await worker.kill()
    while (ticket := await ticket_of(running, task_id)) in (None, first) or not await is_running(records, ticket):
        await asyncio.sleep(0.02)
    seconds = time.monotonic() - began
    await running.behind.pool.replace(worker)
    return seconds


async def until_painting(running: System, task_id: str, *, step: int) -> dict[str, Any]:
    """The task once it has made `step` steps of its first picture, or has ended."""
    while (said := await running.status(task_id))["status"] in ("queued", "processing"):
        if said.get("step", 0) >= step:
            break
        await asyncio.sleep(0.02)
    return said


async def made(running: System, **fields: Any) -> list[str]:
    """The hashes of what an undisturbed run makes, without a cache."""
    return hashes(await running.until(await running.create(**fields), "completed"))


def hashes(task: dict[str, Any]) -> list[str]:
    return [image["sha256"] for image in task["result"]["images"]]


async def ticket_of(running: System, task_id: str) -> str | None:
    task = await running.gateway.ledger.get(task_id)
    return None if task is None else task.ticket


async def is_running(records: JobRecords, ticket: str) -> bool:
    record = await records.look(ticket, line=line_of(ticket))
    return record is not None and record.state != "queued"


def process_named(running: System, name: str) -> WorkerProcess:
    """The process that calls itself `<host>-<pid>`."""
    return next(worker for worker in running.behind.pool.workers if name.endswith(f"-{worker.pid}"))


if __name__ == "__main__":
    main()
