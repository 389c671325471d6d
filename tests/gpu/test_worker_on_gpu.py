"""What a client and the next client see of a GPU: pictures, LoRAs, offloading, cancellation, memory that runs out.

The bundled model is enough: what is asked here is whether the device is used rightly, not how fast it is.
"""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from builder.flux_tiny.lora import OUTPUT, stone_contrast
from builder.flux_tiny.score import disc, disc_colour, disc_side
from flux_engine.build import build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.device import read_device
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.served import ServedModels
from flux_engine.progress import Update
from flux_engine.settings import Offload, Settings
from flux_engine.units import GIB
from flux_engine.worker.worker import Worker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: `make test-gpu` on a machine with one"),
]
PROMPT = "a large red sun on the left over purple mountains at dusk, a lake"


@asynccontextmanager
async def worker_on(tmp_path: Path, wishes: Preferences | None = None) -> AsyncIterator[Worker]:
    volume = tmp_path / "volume"
    (volume / "loras").mkdir(parents=True, exist_ok=True)
    shutil.copy(OUTPUT, volume / "loras")
    settings = Settings.from_environment({"MODEL_VOLUME": str(volume), "FLUX_MODEL": "flux-tiny"})
    models = FluxModelManager(
        ServedModels("flux-tiny", volume=volume, has_gpu=True),
        gpu=read_device,
        volume=volume,
        lora_max_bytes=settings.lora_max_bytes,
        preferences=wishes,
    )
    gpu = GpuThread()
    made = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    yield made
    await made.close()
    gpu.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with worker_on(tmp_path) as made:
        yield made


async def result_of(worker: Worker, **fields: Any) -> dict[str, Any]:
    job = {"prompt": PROMPT, "seed": 7, "cache": False, **fields}
    result = await worker.run({"id": "gpu", "input": job})
    assert "error" not in result, result
    return result


async def picture_of(worker: Worker, **fields: Any) -> Image.Image:
    result = await result_of(worker, **fields)
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).convert("RGB")


def psnr(one: Image.Image, other: Image.Image) -> float:
    error = float(np.mean(np.square(np.asarray(one, np.float64) - np.asarray(other, np.float64))))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


async def test_a_picture_follows_its_prompt_and_its_seed(worker: Worker) -> None:
    first, second = await picture_of(worker), await picture_of(worker)
    assert first.tobytes() == second.tobytes()
    found = disc(first)
    assert found is not None
    assert (disc_colour(found), disc_side(found)) == ("red", "left")


@pytest.mark.parametrize("is_compiled", [False, True])
async def test_a_lora_acts_in_its_job_alone(tmp_path: Path, is_compiled: bool) -> None:
    async with worker_on(tmp_path, Preferences(compile=is_compiled)) as worker:
        plain = await picture_of(worker)
        styled = await picture_of(worker, loras=["mosaic"])
        weak = await picture_of(worker, loras=[{"path": "mosaic", "scale": 0.3}])
        assert stone_contrast([styled]) > stone_contrast([weak]) + 0.5
        assert (await picture_of(worker, loras=[{"path": "mosaic", "scale": 0}])).tobytes() == plain.tobytes()
        assert (await picture_of(worker)).tobytes() == plain.tobytes()


@pytest.mark.parametrize("offload", ["model", "group", "sequential"])
async def test_offloaded_parts_paint_the_same(tmp_path: Path, offload: Offload) -> None:
    """From noise, from a picture, and with a LoRA; and again without, to see that nothing was left behind."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    start = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    jobs: tuple[dict[str, Any], ...] = ({}, {"image": start, "strength": 0.6}, {"loras": ["mosaic"]}, {})
    async with worker_on(tmp_path / "whole", Preferences(offload="none")) as worker:
        expected = [await picture_of(worker, **fields) for fields in jobs]
    async with worker_on(tmp_path / "offloaded", Preferences(offload=offload)) as worker:
        for fields, picture in zip(jobs, expected, strict=True):
            assert psnr(await picture_of(worker, **fields), picture) > 30, fields.keys()
        plan = (await result_of(worker))["model"]["plan"]
    assert plan["offload"] == offload, plan["refused"]


async def test_a_cancelled_job_leaves_the_gpu_at_once_and_no_trace(worker: Worker) -> None:
    before = await picture_of(worker)
    has_begun = asyncio.Event()

    async def see(update: Update) -> None:
        if update["stage"] == "denoising":
            has_begun.set()

    job = {"prompt": PROMPT, "seed": 7, "cache": False, "num_inference_steps": 50, "num_images": 4}
    long = asyncio.create_task(worker.run({"id": "gpu", "input": job}, see, min_interval_s=0))
    await has_begun.wait()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert (await picture_of(worker)).tobytes() == before.tobytes()


async def test_memory_that_runs_out_is_given_back_and_costs_no_job(worker: Worker) -> None:
    """Others of this machine hold all of the memory but a little; once they let go, the worker is as it was."""
    before = await picture_of(worker)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    others = torch.empty(free - GIB // 64, dtype=torch.uint8, device="cuda")
    result = await worker.run({"id": "gpu", "input": {"prompt": PROMPT, "seed": 8, "size": "512x512", "cache": False}})
    del others
    torch.cuda.empty_cache()
    assert "images" in result or '"out_of_memory"' in result["error"], result
    assert psnr(await picture_of(worker), before) > 30


async def test_memory_stays_where_it_was_after_many_jobs(worker: Worker) -> None:
    await picture_of(worker)
    before = torch.cuda.memory_allocated()
    for seed in range(30):
        await picture_of(worker, seed=seed, prompt=f"{PROMPT}, {seed}", num_inference_steps=2)
    assert torch.cuda.memory_allocated() - before < GIB // 8
