"""Jobs that name a model in one file: the picture, what the result says, and what a replaced file changes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_engine.build import build_models, build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.models.single_file.content import content_hash
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker
from tests.models.single_file.files import safetensors
from tests.models.single_file.layouts import all_in_one, component, save, to_bfl

QUICK = {"prompt": "a red sun on the left, a lake, day", "num_inference_steps": 2, "width": 64, "height": 64, "seed": 7}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume" / "models").mkdir(parents=True)
    return tmp_path / "volume"


@pytest.fixture
async def worker(volume: Path, tmp_path: Path) -> AsyncIterator[Worker]:
    settings = Settings.from_environment({"MODEL_VOLUME": str(volume)})
    gpu = GpuThread()
    made = build_worker(
        settings, is_local=False, cache_folder=tmp_path / "cache", models=build_models(settings), gpu=gpu
    )
    yield made
    await made.close()
    gpu.close()


async def made(worker: Worker, **fields: Any) -> dict[str, Any]:
    result = await worker.run({"id": "job", "input": {**QUICK, **fields}})
    assert "error" not in result, result
    return result


def pixels(result: dict[str, Any]) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).tobytes()


async def test_a_file_paints_the_folders_picture_and_says_what_it_is(worker: Worker, volume: Path) -> None:
    path = save(volume / "models" / "mine.safetensors", all_in_one(BUNDLED_FOLDER))
    result = await made(worker, model="mine")
    bundled = await made(worker)
    assert pixels(result) == pixels(bundled)
    assert result["model"]["id"] == result["parameters"]["model"] == "mine.safetensors"
    revision = f"{content_hash(path, volume=volume)}+{bundled['model']['revision']}"
    assert result["model"]["revision"] == revision
    assert result["model"]["precision"] == bundled["model"]["precision"]
    assert (await made(worker, model="mine.safetensors"))["cached"]

    state = component(BUNDLED_FOLDER, "transformer")
    state["proj_out.bias"] = state["proj_out.bias"] + 0.5
    save(path, to_bfl(state))
    replaced = await made(worker, model="mine.safetensors")
    assert not replaced["cached"]
    assert replaced["model"]["revision"] != revision
    assert pixels(replaced) != pixels(result)


async def test_capabilities_and_estimates_know_a_file(worker: Worker, volume: Path) -> None:
    save(volume / "models" / "mine.safetensors", to_bfl(component(BUNDLED_FOLDER, "transformer")))
    (volume / "models" / "style.safetensors").write_bytes(safetensors({"x.lora_A.weight": (4, 4)}))
    told = await worker.run({"id": "ask", "input": {"op": "capabilities"}})
    listed = {model["id"]: model for model in told["models"]}
    assert "style.safetensors" not in listed
    assert (listed["mine.safetensors"]["is_on_volume"], listed["mine.safetensors"]["is_loaded"]) == (True, False)
    assert listed["mine.safetensors"]["defaults"] == listed["flux-tiny"]["defaults"]
    estimate = await worker.run({"id": "ask", "input": {"op": "estimate", "model": "mine.safetensors", **QUICK}})
    assert (estimate["plan"]["model"], estimate["plan"]["fits"]) == ("mine.safetensors", True)
    assert estimate["model"]["is_on_volume"], estimate


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("style.safetensors", "`style.safetensors` is a LoRA; put it into the folder `loras`"),
        ("nothing.gguf", "has no `nothing.gguf`"),
        ("civitai:12", "python builder/fetch_models.py civitai:12"),
        ("https://files.example/a.safetensors", "a model is not fetched during a job"),
    ],
)
async def test_what_is_no_model_is_refused_before_anything_is_loaded(
    model: str, said: str, worker: Worker, volume: Path
) -> None:
    (volume / "models" / "style.safetensors").write_bytes(safetensors({"x.lora_A.weight": (4, 4)}))
    result = await worker.run({"id": "job", "input": {**QUICK, "model": model}})
    error = json.loads(result["error"])
    assert (error["code"], error["retryable"]) == ("model_unavailable", False)
    assert said in error["message"]
    assert str(volume) not in error["message"]
