"""A worker process that takes many jobs with one fingerprint at once; stands for a second RunPod worker.

    python -m tests.cache.twin_worker REDIS_URL FOLDER JOBS [WORK_S [LEASE_S [TWINS]]]

"Generating" is a line in FOLDER/generated, a wait until TWINS wait for it, WORK_S more, and a picture in
FOLDER/results. Prints `claimed` when it begins to generate, and at the end one JSON object: for each job what it got,
when, and the progress it saw.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from flux_engine.cache.flight import Flight, Lookup
from flux_engine.cache.lua import Terms
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import RemoteServer
from flux_engine.results.folder import FolderStore
from tests.cache.results_of import stored
from tests.waiting import PATIENCE_S, until

FINGERPRINT = hashlib.sha256(b"one job").hexdigest()


async def main(url: str, folder: Path, jobs: int, work_s: float, lease_s: float, twins: float) -> None:
    cache = CacheManager(RemoteServer(url), namespace="twins", terms=Terms(lease_s=lease_s), call_timeout_s=PATIENCE_S)

    async def work(flight: Flight) -> None:
        await until_waiting(url, int(twins))
        for tenth in range(10):
            flight.share_progress({"stage": "denoising", "progress": tenth / 10})
            await asyncio.sleep(work_s / 10)

    results = await asyncio.gather(*(run(cache, folder, f"{os.getpid()}-{i}", work) for i in range(jobs)))
    await cache.close()
    print(json.dumps(results), flush=True)


async def until_waiting(url: str, count: int) -> None:
    """Return once `count` jobs wait for their twin."""
    async with Redis.from_url(url) as client:

        async def are_waiting() -> bool:
            channels = await client.pubsub_channels("*:events")
            return count == 0 or (bool(channels) and (await client.pubsub_numsub(*channels))[0][1] >= count)

        await until(are_waiting)


async def run(
    cache: CacheManager, folder: Path, job_id: str, work: Callable[[Flight], Awaitable[None]]
) -> dict[str, object]:
    seen: list[float] = []
    store = FolderStore(folder / "results")
    began = time.time()
    lookup = Lookup(FINGERPRINT, job_id=job_id, store=store, on_progress=lambda update: seen.append(update["progress"]))
    async with cache.flight(lookup) as flight:
        entry = flight.hit
        if entry is None:
            with (folder / "generated").open("a") as log:
                log.write(f"{job_id}\n")
            print("claimed", flush=True)
            await work(flight)
            entry = await stored(store, FINGERPRINT, b"the picture")
            await flight.complete(entry)
    return {
        "sha256": entry.files[0].sha256,
        "was_hit": flight.hit is not None,
        "progress": seen,
        "warning": flight.warning,
        "began": began,
        "ended": time.time(),
    }


if __name__ == "__main__":
    numbers = [float(part) for part in sys.argv[4:]] + [0.5, 15.0, 0.0][len(sys.argv) - 4 :]
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *numbers))
