"""Jobs a second of one warm worker, by jobs made at a time and by how long an upload takes.

Of a batch that stands in the queue, from its first result to its last: a queue that never runs dry has no first job
and no last upload. A step lasts what STEP_S says, as on a card, so that the speed of this machine moves no ratio.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.suite.bucket import slow_bucket
from benchmarks.suite.contenders import STEP_S, Running, quick, running
from benchmarks.suite.samples import Figures, alternating

CONTENDERS: Final[dict[str, dict[str, str]]] = {  # and what is set for it
    "ours": {},
    "ours, 2 at a time": {"WORKER_CONCURRENCY": "2"},
    "ours, 3 at a time": {"WORKER_CONCURRENCY": "3"},
    "plain": {},
}
UPLOADS_MS: Final = {300: 7, 0: 5}  # jobs of a batch; paced, one batch a run is like another
ON_THE_GPU: Final = ("text_ms", "denoise_ms", "decode_ms")


async def measure() -> dict[str, Any]:
    """By milliseconds of an upload: jobs a second, and for ours how much of the time the GPU was busy."""
    found = {}
    for upload_ms, jobs in UPLOADS_MS.items():
        async with AsyncExitStack() as stack:
            volume = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bucket = await stack.enter_async_context(slow_bucket(upload_ms / 1000))
            warm: dict[str, Running] = {}
            for name, settings in CONTENDERS.items():
                environment = {**bucket, **settings}
                warm[name] = await stack.enter_async_context(
                    running(name, volume=volume, environment=environment, step_s=STEP_S)
                )
                await warm[name].run(quick(0))

            async def once(name: str, turn: int, warm: dict[str, Running] = warm, jobs: int = jobs) -> Figures:
                return await _batch(warm[name], jobs, seed=1000 * (turn + 1))

            found[str(upload_ms)] = await alternating(tuple(CONTENDERS), once, rounds=1)
    return {
        "jobs": {str(upload_ms): jobs for upload_ms, jobs in UPLOADS_MS.items()},
        "uploads_ms": found,
    }


async def _batch(contender: Running, count: int, *, seed: int) -> Figures:
    ids = [contender.submit(quick(seed + number)) for number in range(count)]
    jobs = [await contender.result(job_id) for job_id in ids]
    done = sorted(jobs, key=lambda job: job.finished_at or 0)
    span_s = (done[-1].finished_at or 0) - (done[0].finished_at or 0)
    figures = {"jobs a second": (count - 1) / span_s, "GPU busy": 0.0}
    if not contender.is_plain:
        outputs: list[Any] = [job.result["output"] for job in done[1:]]
        busy_s = sum(output["timings"][part] for output in outputs for part in ON_THE_GPU) / 1000
        figures["GPU busy"] = busy_s / span_s
    return figures
