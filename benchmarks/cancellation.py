"""Cancelling a job at a random moment of its 50 steps: how soon the GPU thread is free, without platform and network.

    python -m benchmarks.cancellation [TIMES]

The bundled model at 512x512, where a step takes long enough to be cancelled in the middle. From the cancellation of the
job's task to its end, which comes when the thread is free; and whether the next picture is any different.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.fleet import table
from flux_engine.build import build_worker
from flux_engine.progress import Update
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker

STEPS = 50
LONG = {"prompt": "a white moon over a calm lake", "size": "512x512", "num_inference_steps": STEPS, "cache": False}
NEXT = {"prompt": "a red sun on the left", "num_inference_steps": 4, "seed": 7, "cache": False}


def main() -> None:
    torch.set_num_threads(1)
    asyncio.run(measure(times=int(sys.argv[1]) if len(sys.argv) > 1 else 50, chance=random.Random(0)))


async def measure(*, times: int, chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings.from_environment({"FLUX_MODEL": "flux-tiny", "MODEL_VOLUME": scratch})
        worker = build_worker(settings, is_local=False, cache_folder=Path(scratch))
        fresh = await picture_hash(worker)
        whole = await worker.run({"id": "whole", "input": LONG})
        step_s = whole["timings"]["denoise_ms"] / 1000 / STEPS
        delays_s, is_same = [], 0
        for _ in range(times):
            delays_s.append(await cancelled(worker, after_s=chance.uniform(0, (STEPS - 5) * step_s)))
            is_same += await picture_hash(worker) == fresh
        await worker.close()
    rows = [
        ("cancelled", times),
        ("one step, ms", f"{step_s * 1000:.0f}"),
        ("until the GPU is free, ms: median", f"{statistics.median(delays_s) * 1000:.0f}"),
        ("most, ms", f"{max(delays_s) * 1000:.0f}"),
        ("in steps: median", f"{statistics.median(delays_s) / step_s:.2f}"),
        ("in steps: most", f"{max(delays_s) / step_s:.2f}"),
        ("next picture as in a fresh worker", f"{is_same} of {times}"),
    ]
    print(table(("cancellation", ""), rows))


async def cancelled(worker: Worker, *, after_s: float) -> float:
    """Seconds from the cancellation, `after_s` into the steps of a job, to the end of its task."""
    has_begun = asyncio.Event()

    async def send(update: Update) -> None:
        if update["stage"] == "denoising":
            has_begun.set()

    running = asyncio.create_task(worker.run({"id": "cancelled", "input": LONG}, send))
    await has_begun.wait()
    await asyncio.sleep(after_s)
    began = time.perf_counter()
    if not running.cancel():
        raise SystemExit("the job was done before it could be cancelled")
    await asyncio.wait([running])
    return time.perf_counter() - began


async def picture_hash(worker: Worker) -> str:
    result: dict[str, Any] = await worker.run({"id": "next", "input": NEXT})
    return hashlib.sha256(result["images"][0]["b64_json"].encode()).hexdigest()


if __name__ == "__main__":
    main()
