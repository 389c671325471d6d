"""A picture that was made before, sent again: from the job taken to its result posted; round trips counted."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.cache_hit import requests_of, scripts_run
from benchmarks.suite.contenders import STEP_S, Picture, Running, cpu_s, quick, running, span_s
from benchmarks.suite.samples import Figures, alternating
from tests.servers import ACCESS_KEY, SECRET_KEY, RedisProcess, S3Process

ROUNDS: Final = 5
HITS: Final = 25  # a round
MADE: Final = 1
TWINS: Final = 8


async def measure(*, rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds of a hit, and of the picture made again by the plain worker; then identical jobs at once."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for part in ("redis", "s3", "volume"):
            (folder / part).mkdir()
        redis, s3 = RedisProcess(folder / "redis"), S3Process(folder / "s3")
        for server in (redis, s3):
            server.start()
            stack.callback(server.kill)
        environment = {
            "REDIS_URL": redis.url,
            "BUCKET_ENDPOINT_URL": f"{s3.url}/pictures",
            "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        plain = {**environment, "BUCKET_ENDPOINT_URL": s3.url, "BUCKET_NAME": "pictures"}
        two = {
            name: await stack.enter_async_context(
                running(
                    name,
                    workers=2,
                    volume=folder / "volume",
                    environment=plain if name == "plain" else environment,
                    step_s=STEP_S,
                )
            )
            for name in ("ours", "plain")
        }
        picture = quick(7, cache=True)
        for contender in two.values():  # both workers are warm, and ours have the picture in the cache
            await asyncio.gather(*(contender.run(quick(seed)) for seed in range(8)))
            await contender.run(picture)

        async def once(name: str, _turn: int) -> Figures:
            count = MADE if two[name].is_plain else HITS
            jobs = [await two[name].run(picture) for _ in range(count)]
            return {"ms": 1000 * statistics.median(span_s(job) for job in jobs)}

        found = await alternating(("ours", "plain"), once, rounds=rounds)
        asks = await _counted(two["ours"], picture, redis, s3)
        twins = await alternating(("ours", "plain"), lambda name, turn: _twins(two[name], turn), rounds=2)
    return {"hit": found, "twins": twins, "num_twins": TWINS, "of a hit": asks}


async def _counted(ours: Running, picture: Picture, redis: RedisProcess, s3: S3Process) -> dict[str, float]:
    """What one hit asks of each server, and the worker's CPU milliseconds."""
    requests_of(s3, "start")
    asked, spent = await scripts_run(redis), sum(cpu_s(worker.pid) for worker in ours.pool.workers)
    jobs = [await ours.run(picture) for _ in range(HITS)]
    requests = requests_of(s3, "stop")
    return {
        "Redis round trips": (await scripts_run(redis) - asked) / HITS,
        "S3 requests": requests / HITS,
        "progress posts": sum(len(job.events_of("progress")) for job in jobs) / HITS,
        "CPU ms": 1000 * (sum(cpu_s(worker.pid) for worker in ours.pool.workers) - spent) / HITS,
    }


async def _twins(contender: Running, turn: int) -> Figures:
    """Identical jobs at once on two workers: seconds until the last has its result, and pictures made."""
    began = contender.platform.endpoint.now()
    picture = quick(100 + turn, cache=True)
    jobs = [await contender.result(job_id) for job_id in [contender.submit(picture) for _ in range(TWINS)]]
    outputs: list[Any] = [job.result["output"] for job in jobs]
    made = len(jobs) if contender.is_plain else sum(not output["cached"] for output in outputs)
    return {"s": max(job.finished_at or 0 for job in jobs) - began, "made": float(made)}
