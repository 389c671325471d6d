"""Questions to a worker: how long capabilities take from take to post, and how far estimates are off.

python -m benchmarks.asking --jobs 30

The first figure is of a worker that has loaded nothing, on the local platform; the second of mixed jobs one after the
other on a warm worker of this process, each estimated just before it runs. Both want a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.fleet import table
from flux_engine.build import build_worker
from flux_engine.job.schema.forms import PICTURE
from flux_engine.settings import Settings
from local_platform.server import Platform
from local_platform.workers import WorkerPool

LEARNT = 12  # jobs before the first that counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=30, help="mixed jobs that count")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first, later = asyncio.run(capabilities_ms())
    rows = [("capabilities, first question of a cold worker", f"{first:.0f} ms"), ("the next", f"{later:.0f} ms")]
    off = asyncio.run(estimates(options.jobs, random.Random(options.seed)))
    rows += [
        (f"{len(off)} mixed jobs, estimate off by, median", f"{statistics.median(off):.0%}"),
        ("90 % of them by at most", f"{sorted(off)[int(len(off) * 0.9)]:.0%}"),
    ]
    print(table(("", "measured"), rows))


async def capabilities_ms() -> tuple[float, float]:
    """From the platform handing over the job to its result, for the first and the second question."""
    async with Platform() as platform, WorkerPool(platform) as pool:
        await pool.start(1)
        took = []
        for _ in range(2):
            job = platform.endpoint.submit({"input": {"op": "capabilities"}}, is_sync=True)
            done = await platform.endpoint.finished(job.id)
            taken, result = done.events_of("taken")[0], done.events_of("result")[0]
            took.append((result.at - taken.at) * 1000)
        return took[0], took[1]


async def estimates(jobs: int, chance: random.Random) -> list[float]:
    """How far each estimate was off, as a share of what the job took."""
    with tempfile.TemporaryDirectory() as name:
        settings = Settings.from_environment({"MODEL_VOLUME": f"{name}/volume"})
        worker = build_worker(settings, is_local=False, cache_folder=Path(name) / "cache")
        off = []
        for i in range(LEARNT + jobs):
            job = mixed(i, chance)
            told = (await worker.run({"id": f"e{i}", "input": {"op": "estimate", **job}}))["seconds"]["warm"]
            timings = (await worker.run({"id": f"j{i}", "input": job}))["timings"]
            took = (timings["total_ms"] - timings["load_ms"]) / 1000
            if i >= LEARNT and told is not None:
                off.append(abs(told / took - 1))
        await worker.close()
        return off


def mixed(seed: int, chance: random.Random) -> dict[str, Any]:
    job: dict[str, Any] = {
        "prompt": "a red sun on the left, a lake",
        "seed": seed,
        "width": chance.choice([128, 192, 256]),
        "height": chance.choice([128, 192, 256]),
        "steps": chance.choice([2, 4, 8, 16]),
    }
    if chance.random() < 0.2:
        job["true_cfg_scale"] = 2
    kind = chance.choice(["one", "one", "several", "redrawn", "video"])
    more: dict[str, dict[str, Any]] = {
        "one": {},
        "several": {"num_images": 3},
        "redrawn": {"image": PICTURE, "strength": chance.choice([0.4, 0.8])},
        "video": {"num_frames": 8, "fps": 8},
    }
    return job | more[kind]


if __name__ == "__main__":
    main()
