"""What a job takes beside the pipeline: in ours parsing, turns, encoding and the result, in the plain one Pillow."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.overhead import bare_call, job
from flux_engine.build import build_worker
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.device import read_device
from flux_engine.models.served import ServedModels
from flux_engine.models.spec import ModelSpec
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Settings
from flux_engine.units import GIB

ROUNDS: Final = {"256x256": 5, "1024x1024": 2}
FORMATS: Final = ("jpg", "png")
SAVED: Final = 3


async def measure(*, rounds: dict[str, int] = ROUNDS) -> dict[str, Any]:
    """By size and format: the whole job, its own part, and what the plain worker's file takes; milliseconds."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        return {
            "256x256": await _of(Path(name), side=256, steps=16, rounds=rounds["256x256"]),
            "1024x1024": await _of(Path(name), side=1024, steps=4, rounds=rounds["1024x1024"]),
        }


class _Unbounded(ServedModels):
    """The bundled model, for pictures larger than it was trained for."""

    def default(self) -> ModelSpec:
        spec = super().default()
        return replace(spec, limits=replace(spec.limits, max_pixels=1024 * 1024))


async def _of(volume: Path, *, side: int, steps: int, rounds: int) -> dict[str, Any]:
    import torch
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32)  # as the worker runs it on a CPU
    pipeline.set_progress_bar_config(disable=True)
    served = _Unbounded("flux-tiny", volume=volume, has_gpu=False)
    models = FluxModelManager(served, gpu=read_device, volume=volume, lora_max_bytes=GIB)
    settings = Settings.from_environment({"MODEL_VOLUME": str(volume)})
    worker = build_worker(settings, models=models, is_local=False)
    found: dict[str, Any] = {"bare": [], **{name: {"job": [], "own": [], "plain file": []} for name in FORMATS}}
    bare_call(pipeline, side, steps)
    await job(worker, side, steps, seed=0)
    for seed in range(1, rounds + 1):
        found["bare"].append(bare_call(pipeline, side, steps))
        for name in FORMATS:
            total_ms, result = await job(worker, side, steps, seed=seed, output_format=name)
            timings = result["timings"]
            found[name]["job"].append(total_ms)
            found[name]["own"].append(total_ms - sum(timings[f"{part}_ms"] for part in ("text", "denoise", "decode")))
    picture = _picture(pipeline, side, steps)
    for name in FORMATS:
        found[name]["plain file"] = [_saved_ms(picture, name) for _ in range(SAVED)]
    await worker.close()
    return {"bare": statistics.median(found["bare"]), **{name: _medians(found[name]) for name in FORMATS}}


def _medians(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def _picture(pipeline: Any, side: int, steps: int) -> Any:
    call = {"width": side, "height": side, "num_inference_steps": steps, "max_sequence_length": 32}
    return pipeline("a red sun", **call).images[0]


def _saved_ms(picture: Any, name: str) -> float:
    began = time.perf_counter()
    if name == "png":
        picture.save(io.BytesIO(), "PNG")
    else:
        picture.save(io.BytesIO(), "JPEG", quality=90)
    return (time.perf_counter() - began) * 1000
