"""Ours and the plain worker, in processes of their own on the stand-in for the platform, asked for one picture."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flux_engine.models.weights import BUNDLED_FOLDER
from local_platform.job import Job, Status
from local_platform.processes import WorkerProcess
from local_platform.server import Platform
from local_platform.workers import HANDLER, WorkerPool

ROOT: Final = Path(__file__).parents[2]
PROMPT: Final = "a large red sun on the left over purple mountains at dusk"
STEP_S: Final = 0.06  # a step of `running(..., step_s=STEP_S)`
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture as both can be asked for it."""

    side: int = 256
    steps: int = 16
    seed: int = 7
    prompt: str = PROMPT
    format: str = "png"
    cache: bool = False
    lora: Path | None = None
    frames: int | None = None

    def for_us(self) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "prompt": self.prompt,
            "size": f"{self.side}x{self.side}",
            "num_inference_steps": self.steps,
            "guidance_scale": 3.5,
            "max_sequence_length": 32,
            "seed": self.seed,
            "cache": self.cache,
        }
        if self.lora is not None:
            asked["loras"] = [self.lora.name]  # lies in the volume's folder of LoRAs
        return asked | ({"num_frames": self.frames} if self.frames else {"output_format": self.format})

    def for_plain(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"prompt": self.prompt, "width": self.side, "height": self.side, "steps": self.steps}
        asked |= {"max_sequence_length": 32, "seed": self.seed, "format": self.format}
        if self.lora is not None:
            asked["lora"] = str(self.lora)
        return asked | ({"frames": self.frames} if self.frames else {})


def quick(seed: int, *, cache: bool = False) -> Picture:
    """One whose steps each take a quarter of STEP_S on a core."""
    return Picture(side=128, seed=seed, cache=cache)


@dataclass(frozen=True, slots=True)
class Running:
    """One contender with its platform."""

    platform: Platform
    pool: WorkerPool
    is_plain: bool

    def submit(self, picture: Picture) -> str:
        asked = picture.for_plain() if self.is_plain else picture.for_us()
        return self.platform.endpoint.submit({"input": asked}).id

    async def result(self, job_id: str) -> Job:
        job = await self.platform.endpoint.finished(job_id, timeout_s=600)
        if job.status is not Status.COMPLETED:
            raise SystemExit(f"a job did not complete: {job.status}, {str(job.result)[:500]}")
        return job

    async def run(self, picture: Picture) -> Job:
        return await self.result(self.submit(picture))

    @property
    def worker(self) -> WorkerProcess:
        return self.pool.workers[-1]


@asynccontextmanager
async def running(
    name: str,
    *,
    workers: int = 1,
    volume: Path,
    environment: Mapping[str, str] | None = None,
    step_s: float | None = None,
) -> AsyncIterator[Running]:
    """Contender `name` with `workers` that have asked for a job; none is started where `workers` is 0. Names that begin
    with "plain" are the plain worker's. With `step_s` each denoising step lasts so long, see `paced`."""
    is_plain = name.startswith("plain")
    command = _command(is_plain, step_s)
    settings = {"MODEL": str(BUNDLED_FOLDER), "FLUX_MODEL": "flux-tiny", "MODEL_VOLUME": str(volume)}
    settings |= {"OMP_NUM_THREADS": "1", **(environment or {})}
    async with Platform() as platform, WorkerPool(platform, command=command, environment=settings) as pool:
        if workers:
            await pool.start(workers)
        yield Running(platform, pool, is_plain)


def _command(is_plain: bool, step_s: float | None) -> Sequence[str]:
    if step_s is not None:
        worker = "benchmarks.plain.worker" if is_plain else HANDLER[-1]
        return (sys.executable, "-u", "-m", "benchmarks.suite.paced", str(step_s), worker)
    return (sys.executable, "-u", "-m", "benchmarks.plain.worker") if is_plain else HANDLER


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def span_s(job: Job) -> float:
    """From taken to finished."""
    return (job.finished_at or 0.0) - (job.started_at or 0.0)
