"""Jobs a second of one warm worker, by jobs made at a time and by how long an upload takes."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.suite.bucket import slow_bucket
from benchmarks.suite.contenders import Picture, Running, running
from benchmarks.suite.samples import Figures, alternating

CONTENDERS: Final[dict[str, dict[str, str]]] = {  # and what is set for it
    "ours": {},
    "ours, 2 at a time": {"WORKER_CONCURRENCY": "2"},
    "ours, 3 at a time": {"WORKER_CONCURRENCY": "3"},
    "plain": {},
}
# By an upload's milliseconds: jobs of a batch, and rounds of a run. The last upload of a batch keeps no GPU busy, so
# where it is slow a batch is long: 0.3 s are 2 % of it.
UPLOADS_MS: Final = {300: (24, 1), 0: (8, 1)}
ON_THE_GPU: Final = ("text_ms", "denoise_ms", "decode_ms")


async def measure() -> dict[str, Any]:
    """By milliseconds of an upload: jobs a second, and for ours how much of the time the GPU was busy."""
    found = {}
    for upload_ms, (jobs, rounds) in UPLOADS_MS.items():
        async with AsyncExitStack() as stack:
            volume = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bucket = await stack.enter_async_context(slow_bucket(upload_ms / 1000))
            warm: dict[str, Running] = {}
            for name, settings in CONTENDERS.items():
                environment = {**bucket, **settings}
                warm[name] = await stack.enter_async_context(running(name, volume=volume, environment=environment))
                await warm[name].run(_job(0))

            async def once(name: str, turn: int, warm: dict[str, Running] = warm, jobs: int = jobs) -> Figures:
                return await _batch(warm[name], jobs, seed=1000 * (turn + 1))

            found[str(upload_ms)] = await alternating(tuple(CONTENDERS), once, rounds=rounds)
    return {"jobs": {str(upload_ms): jobs for upload_ms, (jobs, _) in UPLOADS_MS.items()}, "uploads_ms": found}


def _job(seed: int) -> Picture:
    return Picture(side=256, steps=16, seed=seed)  # as the bundled model makes them by default


async def _batch(contender: Running, count: int, *, seed: int) -> Figures:
    ids = [contender.submit(_job(seed + number)) for number in range(count)]
    jobs = [await contender.result(job_id) for job_id in ids]
    span_s = max(job.finished_at or 0 for job in jobs) - min(job.started_at or 0 for job in jobs)
    figures = {"jobs a second": count / span_s, "GPU busy": 0.0}
    if not contender.is_plain:
        outputs: list[Any] = [job.result["output"] for job in jobs]
        busy_s = sum(output["timings"][part] for output in outputs for part in ON_THE_GPU) / 1000
        figures["GPU busy"] = busy_s / span_s
    return figures
