"""What the step cache saves and what it costs: `python -m benchmarks.step_cache`.

flux-tiny at 28 steps, 256x256, with the thresholds of the profiles, against the same pipeline without a cache in the
same run: steps taken from the cache, time of denoising, and the PSNR of the pictures. The bundled model has 8 blocks;
a cache saves a larger share of a model that has 57, since the blocks that are always computed are fewer of them.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch

from benchmarks.fleet import table
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.loading import Source, Tuned, load_tuned
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.way import STEP_CACHE_THRESHOLDS
from flux_engine.models.tuning.step_cache import cached_steps
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.units import GIB
from tests.models.tiny_flux import Pixels, paint, psnr

PROMPTS = (
    "a large red sun on the left over purple mountains at dusk, a lake",
    "a yellow sun on the right over green hills at noon, a meadow",
    "a white moon over blue mountains at night, a snowfield",
)
STEPS = 28
REPEATS = 3


def main() -> None:
    rows = [tuple(row.values()) for row in compared()]
    header = ("threshold", f"steps cached of {STEPS}", "seconds a picture", "of the time", "least PSNR, dB")
    print(table(header, rows))


def compared() -> list[dict[str, float | str | None]]:
    """By threshold: steps cached, seconds of a picture, the share of the time, and the least likeness."""
    torch.set_num_threads(1)
    thresholds = sorted({threshold for threshold in STEP_CACHE_THRESHOLDS.values() if threshold is not None})
    plain, plain_s, _ = painted(None)
    rows: list[dict[str, float | str | None]] = [
        {"threshold": "none", "cached": 0.0, "s": round(plain_s, 2), "of the time": 1.0, "psnr": None}
    ]
    for threshold in thresholds:
        pictures, seconds, cached = painted(threshold)
        least = min(psnr(one, other) for one, other in zip(pictures, plain, strict=True))
        shares = {"s": round(seconds, 2), "of the time": round(seconds / plain_s, 2), "psnr": round(least, 1)}
        rows.append({"threshold": str(threshold), "cached": round(cached, 1), **shares})
    return rows


def painted(threshold: float | None) -> tuple[list[Pixels], float, float]:
    """The pictures, the median seconds of one, and the mean number of cached steps."""
    tuned = _tuned(threshold)
    pictures, seconds, cached = [], [], []
    for prompt in PROMPTS:
        for _ in range(REPEATS):
            tuned.applied.begin_call(tuned.pipeline, num_inference_steps=STEPS)
            began = time.perf_counter()
            picture = paint(tuned.pipeline, prompt, side=256, steps=STEPS)
            seconds.append(time.perf_counter() - began)
        cached.append(cached_steps(tuned.pipeline) if threshold is not None else 0)
        pictures.append(picture)
    return pictures, statistics.median(seconds), statistics.mean(cached)


def _tuned(threshold: float | None) -> Tuned:
    plan = ModelOptimizer().plan(cpu_machine(total_bytes=16 * GIB), FLUX_TINY)
    plan = replace(plan, step_cache_threshold=threshold)
    return load_tuned(FLUX_TINY, Source(folder=BUNDLED_FOLDER, revision="1"), plan, device="cpu")


if __name__ == "__main__":
    main()
