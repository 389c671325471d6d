"""Jobs with slow uploads: how busy the GPU is with one job in flight, and with two.

    python -m benchmarks.queue_overlap --jobs 20 --upload-ms 300

The bucket is a server of this process that takes its time over every upload.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from benchmarks.fleet import fleet, table
from local_platform.job import Job, Status
from local_platform.server import Platform

ORDER = {
    "prompt": "a white moon over a calm lake",
    "num_inference_steps": 8,
    "size": "512x512",
    "response_format": "url",
    "cache": False,
}
ON_THE_GPU = ("text_ms", "denoise_ms", "decode_ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--upload-ms", type=int, default=300)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 3], help="values of WORKER_CONCURRENCY")
    options = parser.parse_args()
    asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    rows = []
    async with slow_bucket(options.upload_ms / 1000) as url:
        for in_flight in options.in_flight:
            jobs = await run(options.jobs, in_flight=in_flight, bucket=url)
            span_s = max(job.finished_at or 0 for job in jobs) - min(job.started_at or 0 for job in jobs)
            gpu_s = sum(timing(job, part) for job in jobs for part in ON_THE_GPU)
            uploads_s = sum(timing(job, "upload_ms") for job in jobs)
            completed = sum(job.status is Status.COMPLETED for job in jobs)
            seconds = (f"{span_s:.1f}", f"{gpu_s:.1f}", f"{uploads_s:.1f}")
            rates = (f"{gpu_s / span_s:.0%}", f"{len(jobs) / span_s:.2f}")
            rows.append((in_flight, f"{completed} of {len(jobs)}", *seconds, *rates))
    head = ("jobs in flight", "COMPLETED", "seconds", "on the GPU", "uploading", "GPU busy", "jobs a second")
    print(table(head, rows))


async def run(count: int, *, in_flight: int, bucket: str) -> Sequence[Job]:
    """The jobs of a warm worker with `in_flight` of them at once."""
    environment = {
        "WORKER_CONCURRENCY": str(in_flight),
        "BUCKET_ENDPOINT_URL": bucket,
        "BUCKET_NAME": "results",
        "BUCKET_ACCESS_KEY_ID": "local",
        "BUCKET_SECRET_ACCESS_KEY": "local",
        "BUCKET_REGION": "local",
    }
    async with fleet(Platform(), workers=1, environment=environment) as running:
        await running.run(ORDER)
        return await running.results([await running.submit(ORDER) for _ in range(count)])


@asynccontextmanager
async def slow_bucket(delay_s: float) -> AsyncIterator[str]:
    """An S3-compatible store that takes uploads and forgets them; its URL."""

    async def put(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(delay_s)
        return web.Response(headers={"ETag": '"0"'})

    async def missing(_: web.Request) -> web.Response:
        return web.Response(status=404)

    app = web.Application(client_max_size=2**26)
    app.router.add_put("/{path:.*}", put)
    app.router.add_get("/{path:.*}", missing)  # and HEAD
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def timing(job: Job, part: str) -> float:
    """Seconds of a part of a job; a job that failed has none."""
    output: Any = job.result.get("output", {})
    return float(output.get("timings", {}).get(part, 0)) / 1000


if __name__ == "__main__":
    main()
