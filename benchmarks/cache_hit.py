"""What a hit costs, from the moment a worker takes the job to its posted result, against making the picture.

    python -m benchmarks.cache_hit [--jobs 20]

The real handler in processes of its own, with Redis and an S3 server over HTTP: a picture made by a cold worker and by
a warm one, then the same jobs again in a worker that has just started. Below the table: what a hit asks of each server,
counted by the servers, and one worker's hits a second without the SDK: parse, look up, check the object, sign a URL.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

from redis.asyncio import Redis

from benchmarks.fleet import Fleet, fleet, table
from flux_engine.build import build_worker
from flux_engine.settings import Settings
from local_platform.job import Job, Status
from local_platform.server import Platform
from tests.servers import ACCESS_KEY, SECRET_KEY, RedisProcess, S3Process

ORDER = {"prompt": "a red sun on the left over purple mountains"}
HITS_FOR_S = 3.0


async def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("redis", "s3", "volume"):
            (folder / part).mkdir()
        redis, s3 = RedisProcess(folder / "redis"), S3Process(folder / "s3")
        redis.start()
        s3.start()
        environment = {
            "REDIS_URL": redis.url,
            "BUCKET_ENDPOINT_URL": f"{s3.url}/pictures",
            "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
            "MODEL_VOLUME": str(folder / "volume"),
            "CACHE_NAMESPACE": "hits",
        }
        try:
            await through_the_platform(environment, jobs, redis, s3)
            await hits_a_second(environment)
        finally:
            redis.kill()
            s3.kill()


async def through_the_platform(environment: dict[str, str], jobs: int, redis: RedisProcess, s3: S3Process) -> None:
    async with fleet(Platform(), workers=1, environment=environment) as running:
        made = [await one(running, seed) for seed in range(jobs)]
        making = running.pool.workers[-1]
        rows = [row("made, cold worker", made[:1], making.pid), row("made, warm worker", made[1:], making.pid)]
        fresh = await running.pool.replace(making)
        first = [await one(running, 0)]
        rows.append(row("hit, fresh worker", first, fresh.pid))
        asked = await scripts_run(redis)
        requests_of(s3, "start")
        hits = [await one(running, seed) for seed in range(1, jobs)]
        requests, asked = requests_of(s3, "stop"), await scripts_run(redis) - asked
        rows.append(row("hit, the next ones", hits, fresh.pid))
    print(table(("job", "jobs", "cached", "median ms", "most ms", "peak MB", "torch"), rows))
    posts = sum(len(job.events_of("progress")) for job in hits)
    each = (
        f"{count / len(hits):g} {what}" for count, what in ((asked, "Redis"), (requests, "S3"), (posts, "progress"))
    )
    print(f"\nround trips of a hit beside taking the job and posting its result: {', '.join(each)}")


async def scripts_run(redis: RedisProcess) -> int:
    """Round trips to Redis so far: each step of the cache is one script."""
    async with Redis.from_url(redis.url) as client:
        return int((await client.info("commandstats")).get("cmdstat_eval", {"calls": 0})["calls"])


def requests_of(s3: S3Process, state: Literal["start", "stop"]) -> int:
    """Begin or end moto's record of requests; how many it holds."""
    if state == "start":
        moto(s3, "reset-recording", method="POST")
    moto(s3, f"{state}-recording", method="POST")
    return len(moto(s3, "download-recording", method="GET").splitlines())


def moto(s3: S3Process, what: str, *, method: str) -> bytes:
    with urlopen(Request(f"{s3.url}/moto-api/recorder/{what}", method=method)) as answer:
        body: bytes = answer.read()
    return body


async def one(running: Fleet, seed: int) -> Job:
    job = await running.run({**ORDER, "seed": seed})
    assert job.status is Status.COMPLETED, job.result
    return job


def row(what: str, jobs: list[Job], pid: int) -> tuple[object, ...]:
    taken_ms = [1000 * ((job.finished_at or 0) - (job.started_at or 0)) for job in jobs]
    outputs: list[Any] = [job.result["output"] for job in jobs]
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    has_torch = "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    return (
        what,
        len(jobs),
        sum(output["cached"] for output in outputs),
        round(statistics.median(taken_ms)),
        round(max(taken_ms)),
        round(int(status["VmHWM"].split()[0]) / 1000),
        "loaded" if has_torch else "not loaded",
    )


async def hits_a_second(environment: dict[str, str]) -> None:
    logging.getLogger("flux_engine").setLevel("WARNING")
    worker = build_worker(Settings.from_environment(environment), is_local=False)
    job = {"id": "hit", "input": {**ORDER, "seed": 0}}
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < HITS_FOR_S:
        result = await worker.run(job)
        assert result["cached"], result
        count += 1
    print(f"\n{count / HITS_FOR_S:.0f} hits a second of one worker, one after the other")
    assert "torch" not in sys.modules
    await worker.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    asyncio.run(main(parser.parse_args().jobs))
