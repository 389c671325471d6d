"""A platform with one real worker, and what the tests of the handler ask of them."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, Final

from local_platform.job import Job, Status
from local_platform.processes import WorkerProcess
from local_platform.server import Platform
from tests.runpod.pool import LoggedPool

SUN: Final = {
    "prompt": "a red sun on the left over purple mountains",
    "seed": 7,
    "num_inference_steps": 2,
    "cache": False,
}
LONG: Final = {
    "prompt": "a white moon over a lake",
    "size": "512x512",
    "num_inference_steps": 50,
    "cache": False,
}
IN_HAND: Final = LONG | {"num_inference_steps": 16}  # long enough to be met at work
REFUSED: Final = {"prompt": "a sun", "width": 1}
LEASE_S: Final = 8.0  # longer than a busy machine's stalls
SLOW_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Live:
    """A platform with one real worker, and what one asks of them."""

    platform: Platform
    pool: LoggedPool

    @property
    def worker(self) -> WorkerProcess:
        return self.pool.workers[-1]

    def job(self, job_id: str) -> Job:
        return self.platform.endpoint.queue[job_id]

    def submit(self, job_input: dict[str, Any], *, is_sync: bool = False) -> str:
        return self.platform.endpoint.submit({"input": job_input}, is_sync=is_sync).id

    async def result(self, job_id: str) -> Job:
        return await self.platform.endpoint.finished(job_id)

    async def run(self, job_input: dict[str, Any], *, is_sync: bool = False) -> Job:
        return await self.result(self.submit(job_input, is_sync=is_sync))

    async def until_asking(self) -> None:
        """Wait until the worker asks for a job."""
        endpoint, worker_id = self.platform.endpoint, self.worker.id
        await endpoint.until(lambda: (seen := endpoint.worker(worker_id)) is not None and seen.is_asking)

    async def until_stage(self, job_id: str, stage: str) -> None:
        """Wait until the job is seen in `stage`."""
        await self.platform.endpoint.until(lambda: stage in (update["stage"] for update in updates(self.job(job_id))))

    async def until_step(self, job_id: str, step: int) -> None:
        await self.platform.endpoint.until(lambda: last_step(self.job(job_id)) >= step)


def updates(job: Job) -> list[Any]:
    """The progress that was posted of a job."""
    return [event.detail for event in job.events_of("progress")]


def last_step(job: Job) -> int:
    return max((update.get("step", 0) for update in updates(job)), default=0)


def output(job: Job) -> dict[str, Any]:
    """The result of a job that must have succeeded."""
    assert job.status is Status.COMPLETED, job.result
    made = job.result["output"]
    assert isinstance(made, dict)
    return made


def error(job: Job) -> dict[str, Any]:
    """The error of a job that must have failed."""
    assert job.status is Status.FAILED, job.result
    told = json.loads(str(job.result["error"]))
    assert isinstance(told, dict)
    return told


def picture(job: Job) -> str:
    """The hash of a job's picture, having checked the one it came with."""
    image = output(job)["images"][0]
    digest = hashlib.sha256(b64decode(image["b64_json"])).hexdigest()
    assert digest == image["sha256"]
    return digest
