"""The cache under load and under murder, in rounds; every number is one seen here.

    python -m benchmarks.cache_takeover [ROUNDS]

Each round has a server of its own. First two processes take 25 identical jobs each at once: how many generations, and
how long from the first job's start to the last one's end. Then an owner is killed while three others wait: how long
from the kill until one of them has taken over and finished. Last, hits: one at a time, and in a fresh process.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.servers import RedisProcess

LEASE_S = 2.0
WORK_S = 0.5
REPOSITORY = Path(__file__).parents[1]

FRESH_HIT = """
import time
began = time.perf_counter()
import asyncio, resource, sys
from pathlib import Path
from flux_engine.cache.flight import Lookup
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import RemoteServer
from flux_engine.results.folder import FolderStore
from tests.cache.twin_worker import FINGERPRINT

async def main():
    cache = CacheManager(RemoteServer(sys.argv[1]), namespace="twins")
    store = FolderStore(Path(sys.argv[2]) / "results")
    for job in ("first", "second"):
        start = time.perf_counter()
        async with cache.flight(Lookup(FINGERPRINT, job_id=job, store=store)) as flight:
            assert flight.hit is not None
        print(f"{(time.perf_counter() - start) * 1000:.1f} ms the {job} hit of a fresh process")
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 2:
        async with cache.flight(Lookup(FINGERPRINT, job_id="hit", store=store)) as flight:
            count += flight.hit is not None
    print(f"{count / 2:.0f} hits a second, one after the other")
    await cache.close()

asyncio.run(main())
assert "torch" not in sys.modules and "boto3" not in sys.modules
print(f"{(time.perf_counter() - began) * 1000 - 2000:.0f} ms the process besides those two seconds, imports included")
print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most; neither torch nor boto3")
"""


def main(rounds: int) -> None:
    one_flight, takeovers = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "redis").mkdir()
            redis = RedisProcess(folder / "redis")
            redis.start()
            try:
                one_flight.append(fifty_at_once(redis, folder))
                takeovers.append(owner_killed(redis, folder))
                print(f"round {number + 1}: 50 jobs {one_flight[-1]:.2f} s, taken over after {takeovers[-1]:.2f} s")
                if number == rounds - 1:
                    subprocess.run([sys.executable, "-c", FRESH_HIT, redis.url, name], check=True, cwd=REPOSITORY)
            finally:
                redis.kill()
    print(f"{rounds} rounds of 50 jobs: one generation each; median {statistics.median(one_flight):.2f} s")
    print(f"{rounds} owners killed: median {statistics.median(takeovers):.2f} s, at most {max(takeovers):.2f} s")
    print(f"(a lease is {LEASE_S:.0f} s, the work {3 * WORK_S:.1f} s for fifty and {WORK_S:.1f} s after a kill)")


def fifty_at_once(redis: RedisProcess, folder: Path) -> float:
    workers = [twin(redis, folder, jobs=25, work_s=3 * WORK_S) for _ in range(2)]  # both are up before it ends
    results = [job for worker in workers for job in results_of(worker)]
    generated = (folder / "generated").read_text().splitlines()
    assert len(results) == 50, len(results)
    assert len(generated) == 1, generated
    assert sum(bool(job["progress"]) for job in results) >= 49, "some came too late to wait"
    return float(max(job["ended"] for job in results) - min(job["began"] for job in results))


def owner_killed(redis: RedisProcess, folder: Path) -> float:
    for path in (folder / "results").glob("*.png"):
        path.unlink()  # the hit of the first part is gone: a miss
    owner = twin(redis, folder, jobs=1, work_s=60)
    assert owner.stdout is not None
    owner.stdout.readline()
    waiters = twin(redis, folder, jobs=3, work_s=WORK_S)
    asyncio.run(until_waiting(redis, 3))
    owner.kill()
    killed_at = time.time()
    owner.communicate()
    made = [job for job in results_of(waiters) if not job["was_hit"]]
    assert len(made) == 1, made
    return float(made[0]["ended"]) - killed_at - WORK_S


async def until_waiting(redis: RedisProcess, count: int) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(redis.url) as client:
        while True:
            channels = await client.pubsub_channels("*:events")
            if channels and (await client.pubsub_numsub(*channels))[0][1] >= count:
                return
            await asyncio.sleep(0.02)


def twin(redis: RedisProcess, folder: Path, *, jobs: int, work_s: float) -> subprocess.Popen[str]:
    arguments = [redis.url, str(folder), str(jobs), str(work_s), str(LEASE_S)]
    command = [sys.executable, "-m", "tests.cache.twin_worker", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def results_of(worker: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0
    results: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
    return results


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of CPU in all")
