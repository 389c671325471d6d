"""A local platform with real workers, driven by the official asynchronous client. The queue's benchmarks share it."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import runpod

from local_platform.job import Job, Status
from local_platform.processes import OnLine
from local_platform.server import API_KEY, Platform
from local_platform.workers import WorkerPool

JOB_TIMEOUT_S = 1_800


@dataclass(frozen=True, slots=True)
class Fleet:
    platform: Platform
    pool: WorkerPool
    client: Any  # runpod.AsyncioEndpoint

    async def submit(self, job_input: Mapping[str, Any]) -> str:
        """Submit by the official client; returns the job's id."""
        return str((await self.client.run(dict(job_input))).job_id)

    async def result(self, job_id: str) -> Job:
        """The job once it is final, as the platform has it: its times do not depend on how often a client asks."""
        return await self.platform.endpoint.finished(job_id, timeout_s=JOB_TIMEOUT_S)

    async def run(self, job_input: Mapping[str, Any]) -> Job:
        return await self.result(await self.submit(job_input))

    async def results(self, job_ids: Sequence[str]) -> list[Job]:
        return list(await asyncio.gather(*(self.result(job_id) for job_id in job_ids)))


@asynccontextmanager
async def fleet(
    platform: Platform, *, workers: int, environment: Mapping[str, str] | None = None, on_line: OnLine | None = None
) -> AsyncIterator[Fleet]:
    """`workers` workers with the bundled model and an empty volume."""
    with tempfile.TemporaryDirectory() as volume:
        settings = {"FLUX_MODEL": "flux-tiny", "MODEL_VOLUME": volume, **(environment or {})}
        async with (
            platform,
            WorkerPool(platform, environment=settings, on_line=on_line) as pool,
            aiohttp.ClientSession() as session,
        ):
            runpod.endpoint_url_base = platform.client_url
            await pool.start(workers)
            yield Fleet(platform, pool, runpod.AsyncioEndpoint(platform.endpoint.id, session, api_key=API_KEY))


def picture_hash(job: Job) -> str | None:
    """SHA-256 of all pictures of a job, or None where it has none."""
    output = job.result.get("output")
    if job.status is not Status.COMPLETED or not isinstance(output, dict):
        return None
    return hashlib.sha256(b"".join(b64decode(image["b64_json"]) for image in output["images"])).hexdigest()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie; nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
