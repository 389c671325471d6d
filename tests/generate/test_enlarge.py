"""Pictures enlarged by the bundled model, tile by tile, and by a network on the volume."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from flux_engine.build import build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.media.mosaic import tiles_of
from flux_engine.models.manager import FluxModelManager
from flux_engine.progress import Update
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker
from tests.models.beside.test_upscaler import weights

JOB = {"prompt": "a large red sun on the left over purple mountains, day", "seed": 7, "size": "128x128"}


async def made(worker: Worker, **fields: Any) -> tuple[Image.Image, dict[str, Any]]:
    result = await worker.run({"id": "enlarge", "input": {**JOB, "num_inference_steps": 8, "cache": False, **fields}})
    assert "error" not in result, result
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).convert("RGB"), result


async def test_tiles_show_the_same_picture_without_a_seam(worker: Worker) -> None:
    plain, _ = await made(worker)
    large, result = await made(worker, upscale=4)
    assert (large.size, result["images"][0]["width"], result["parameters"]["width"]) == ((512, 512), 512, 128)
    beneath = np.asarray(plain.resize((512, 512), Image.Resampling.LANCZOS)).astype(float)
    values = np.asarray(large).astype(float)
    assert np.abs(values - beneath).mean() < 8
    steps = np.abs(np.diff(values, axis=1)).mean((0, 2))
    edges = sorted({edge - 1 for box in tiles_of((512, 512), side=256, overlap=64) for edge in box[::2]} - {-1, 511})
    assert edges == [127, 255, 383]
    beside = np.concatenate([steps[edge + shift : edge + shift + 4] for edge in edges for shift in (-12, -8, 8, 12)])
    assert steps[edges].mean() <= beside.mean() + 0.5, (steps[edges], beside.mean())
    assert result["usage"]["work"] > 4 * (128 / 1024) ** 2 * 8 * 0.99


async def test_every_step_of_every_tile_is_reported(worker: Worker) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    job = {**JOB, "num_inference_steps": 2, "cache": False, "upscale": 2, "num_images": 2, "size": "192x192"}
    result = await worker.run({"id": "enlarge", "input": job}, send, min_interval_s=0)
    assert [(image["width"], image["height"]) for image in result["images"]] == [(384, 384)] * 2
    steps = [update for update in updates if update.get("step")]
    assert {update["total_steps"] for update in steps} == {2 * (2 + 4)}  # two steps, and one for each of four tiles
    assert steps[-1]["step"] == 12


async def test_a_network_on_the_volume_is_used(warm: tuple[FluxModelManager, GpuThread], tmp_path: Path) -> None:
    folder = tmp_path / "volume" / "upscale_models"
    folder.mkdir(parents=True)
    save_file(weights(4), folder / "4x-small.safetensors")
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path / "volume")})
    models, gpu = warm
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    few = {"num_inference_steps": 1, "size": "64x64", "upscale": 2, "cache": True}
    (first, one), (_, again) = await made(worker, **few), await made(worker, **few)
    assert first.size == (128, 128)
    assert (one["cached"], again["cached"]) == (False, True)
    (folder / "4x-small.safetensors").write_bytes(b"no network")
    broken = await worker.run({"id": "enlarge", "input": {**JOB, **few}})
    assert '"model_unavailable"' in broken["error"]
    (folder / "4x-small.safetensors").unlink()
    by_tiles, other = await made(worker, **few)
    assert not other["cached"]
    assert by_tiles.size == (128, 128)
    assert by_tiles.tobytes() != first.tobytes()
    await worker.close()
