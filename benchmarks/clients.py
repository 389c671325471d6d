"""Both clients against the local platform while workers are killed and connections reset: each job once, and right?

PYTHONPATH=clients/python python -m benchmarks.clients --jobs 100 --kills 8 --resets 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from flux_client import AsyncFluxClient

from benchmarks.fleet import table
from local_platform.job import Status
from local_platform.server import API_KEY, Platform
from local_platform.workers import WorkerPool
from tests.clients.endpoint import painting
from tests.runpod.handlers.painter import painted

ROOT: Final = Path(__file__).parents[1]
CLIENT: Final = ROOT / "clients" / "typescript"
Use = Callable[[Platform, int], Awaitable[list[bytes]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--resets", type=float, default=0.1, help="share of requests whose connection is reset")
    options = parser.parse_args()
    rows = [asyncio.run(measure(name, use, options)) for name, use in (("Python", by_python), ("TypeScript", by_node))]
    head = ("client", "jobs", "right", "submitted", "made more than once", "kills", "resets", "seconds")
    print(table(head, rows))


async def measure(name: str, use: Use, options: argparse.Namespace) -> tuple[str, ...]:
    began = time.monotonic()
    async with painting(workers=2, resets=options.resets) as (platform, pool):
        killing = asyncio.create_task(kill(platform, pool, options))
        got = await use(platform, options.jobs)
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        jobs = platform.endpoint.queue.jobs
        right = sum(data == painted(seed) for seed, data in enumerate(got))
        done = [job for job in jobs if job.status is Status.COMPLETED]
        again = sum(len(job.events_of("late_result")) > 0 for job in done)
        resets = sum(platform.faults.counts.values())
    figures = (options.jobs, right, len(jobs), again, options.kills, resets, round(time.monotonic() - began))
    return (name, *map(str, figures))


async def kill(platform: Platform, pool: WorkerPool, options: argparse.Namespace) -> None:
    """Kill a worker each time that a further share of the jobs is done."""
    chance, queue = random.Random(1), platform.endpoint.queue
    for i in range(1, options.kills + 1):
        due = options.jobs * i // (options.kills + 1)
        await platform.endpoint.until(lambda due=due: queue.counts()["completed"] >= due, timeout_s=600)  # type: ignore[misc]
        await pool.replace(chance.choice(pool.workers))


async def by_python(platform: Platform, count: int) -> list[bytes]:
    async with AsyncFluxClient(platform.endpoint.id, api_key=API_KEY, base_url=platform.client_url) as client:

        async def one(seed: int) -> bytes:
            result = await client.run({"prompt": "a red sun", "seed": seed})
            return await client.read(result.images[0])

        return list(await asyncio.gather(*(one(seed) for seed in range(count))))


async def by_node(platform: Platform, count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        compiler = CLIENT / "node_modules" / ".bin" / "tsc"
        await asyncio.to_thread(subprocess.check_call, [str(compiler), "-p", str(CLIENT), "--outDir", folder])
        (Path(folder) / "package.json").write_text('{"type": "module"}')
        script = str(ROOT / "tests" / "clients" / "node" / "use.mjs")
        process = await asyncio.create_subprocess_exec(
            *("node", script, f"{folder}/index.js", platform.client_url, platform.endpoint.id),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        orders = [{"job": {"prompt": "a red sun", "seed": seed}} for seed in range(count)]
        told, _ = await process.communicate(json.dumps(orders).encode())
        return [base64.b64decode(answer.get("data", "")) for answer in json.loads(told)]


if __name__ == "__main__":
    main()
