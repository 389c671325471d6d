"""The worker's own cost: a job through `Worker.run` against a bare `FluxPipeline` call, in one run.

    python -m benchmarks.overhead

Everything but text, denoising and decoding is the worker's: parsing, waiting for the GPU thread, progress, encoding
the file, its hash, the result. Measured at 256x256 with the bundled model and at 1024x1024 with a random one of the
same shape; jobs and bare calls take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline

from flux_engine.build import build_worker
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker

PROMPT = "a large red sun on the left over purple mountains at dusk, a calm lake and pine trees"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [("256x256, bundled", BUNDLED_FOLDER, 256, 16, options.rounds)]
    with tempfile.TemporaryDirectory() as scratch:
        random_folder = make_random(Path(scratch) / "random-flux")
        rows.append(("1024x1024, random", random_folder, 1024, 4, max(2, options.rounds // 3)))
        print(f"{'':20}{'bare ms':>10}{'job ms':>10}{'own ms':>10}{'encode':>10}{'share':>8}")
        for name, folder, side, steps, rounds in rows:
            bare, jobs, own, encode = asyncio.run(measure(folder, side=side, steps=steps, rounds=rounds))
            print(f"{name:20}{bare:10.0f}{jobs:10.0f}{own:10.1f}{encode:10.1f}{own / jobs:8.1%}")


def make_random(folder: Path) -> Path:
    """The bundled model with random weights in its transformer, in a folder whose own limits allow 1024x1024."""
    pipeline = FluxPipeline.from_pretrained(BUNDLED_FOLDER, dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    for parameter in pipeline.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    pipeline.save_pretrained(folder)
    return folder


async def measure(folder: Path, *, side: int, steps: int, rounds: int) -> tuple[float, float, float, float]:
    """Medians in ms: a bare call, a job, the job's part outside of text, denoising and decoding, and encoding."""
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)  # as the worker runs it on a CPU
    pipeline.set_progress_bar_config(disable=True)
    worker = build_worker(Settings.from_environment({"FLUX_MODEL": str(folder)}), is_local=False)
    bare_call(pipeline, side, steps)
    await job(worker, side, steps, seed=0)
    bare, jobs, own, encode = [], [], [], []
    for seed in range(1, rounds + 1):
        bare.append(bare_call(pipeline, side, steps))
        total_ms, result = await job(worker, side, steps, seed=seed)
        timings = result["timings"]
        jobs.append(total_ms)
        own.append(total_ms - sum(timings[f"{part}_ms"] for part in ("text", "denoise", "decode")))
        encode.append(timings["encode_ms"])
    await worker.close()
    return statistics.median(bare), statistics.median(jobs), statistics.median(own), statistics.median(encode)


def bare_call(pipeline: Any, side: int, steps: int) -> float:
    began = time.perf_counter()
    pipeline(
        PROMPT, width=side, height=side, num_inference_steps=steps, guidance_scale=3.5, max_sequence_length=32,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    return (time.perf_counter() - began) * 1000


async def job(worker: Worker, side: int, steps: int, *, seed: int, output_format: str = "png") -> tuple[float, Any]:
    fields = {"prompt": f"{PROMPT}, {seed}", "width": side, "height": side, "seed": seed, "cache": False}
    fields |= {"num_inference_steps": steps, "guidance_scale": 3.5, "max_sequence_length": 32}
    fields["output_format"] = output_format
    began = time.perf_counter()
    result = await worker.run({"id": f"job-{seed}", "input": fields})
    total_ms = (time.perf_counter() - began) * 1000
    if "error" in result:
        raise SystemExit(json.loads(result["error"])["message"])
    return total_ms, result


if __name__ == "__main__":
    main()
