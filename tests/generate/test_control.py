"""Maps that a picture follows, with a small random ControlNet Union of the real class beside the bundled model."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetModel
from PIL import Image, ImageDraw, ImageOps

from flux_engine.build import build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.models.beside.controlnets import ignore_diffusers_warning
from flux_engine.models.beside.depth import PREPROCESSOR_FOLDER, DepthModels, load_depth
from flux_engine.models.manager import FluxModelManager
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker
from tests.models.beside.test_depth import save_depth_model

JOB = {"prompt": "a red sun", "seed": 7, "size": "64x64", "num_inference_steps": 2, "cache": False}


def a_map(corner: int = 10) -> str:
    picture = Image.new("RGB", (96, 64), "black")
    ImageDraw.Draw(picture).ellipse((corner, corner, 60, 50), fill="white")
    return base64_of(picture)


def base64_of(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def a_view() -> str:
    """A picture in colour."""
    gradient = Image.linear_gradient("L").resize((96, 64))
    return base64_of(Image.merge("RGB", (gradient, gradient.rotate(180), Image.radial_gradient("L").resize((96, 64)))))


def save_controlnet(folder: Path) -> None:
    torch.manual_seed(3)
    ignore_diffusers_warning()
    network = FluxControlNetModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=96,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=[4, 14, 14],
        num_mode=10,
    )
    for part in (network.controlnet_blocks, network.controlnet_single_blocks, network.controlnet_x_embedder):
        for weight in part.parameters():  # they begin at zero, where no map makes a difference
            torch.nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)


@pytest.fixture
async def controlled(warm: tuple[FluxModelManager, GpuThread], tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker with a ControlNet on its volume."""
    save_controlnet(tmp_path / "volume" / "controlnets" / "union")
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path / "volume")})
    models, gpu = warm
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    yield worker
    await worker.close()


async def pixels_of(worker: Worker, **fields: Any) -> bytes:
    result = await worker.run({"id": "control", "input": JOB | fields})
    assert "error" not in result, result
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).tobytes()


def distance(one: bytes, other: bytes) -> float:
    return float(np.abs(np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8)).mean())


async def test_a_picture_follows_its_map(controlled: Worker) -> None:
    canny = {"type": "canny", "image": a_map()}
    first = await pixels_of(controlled, control=canny)
    assert await pixels_of(controlled, control=[canny]) == first
    others = [
        await pixels_of(controlled, control=control)
        for control in (
            {"type": "depth", "image": a_map()},
            {"type": "depth", "image": a_map(25)},
            canny | {"strength": 0.2},
            canny | {"end": 0.4},
            [canny, {"type": "pose", "image": a_map(25)}],
        )
    ]
    assert len({first, *others}) == 6
    without = [await pixels_of(controlled, control=canny | part) for part in ({"strength": 0}, {"end": 0})]
    assert without[0] == without[1] != first  # a map that is not followed leaves no trace


async def test_a_picture_is_redrawn_along_a_map(controlled: Worker) -> None:
    canny = {"type": "canny", "image": a_map()}
    begun = {"image": a_map(25), "control": canny, "num_inference_steps": 4}
    faint, strong = [await pixels_of(controlled, **begun, strength=strength) for strength in (0.25, 1)]
    given = Image.open(io.BytesIO(base64.b64decode(a_map(25)))).convert("RGB")
    near, far = (distance(pixels, ImageOps.fit(given, (64, 64)).tobytes()) for pixels in (faint, strong))
    assert near < far
    without = [
        await pixels_of(controlled, **begun | {"control": canny | part}, strength=1)
        for part in ({"strength": 0}, {"end": 0})
    ]
    assert without[0] == without[1] != strong


async def test_a_depth_map_is_made_where_its_model_is_on_the_volume(controlled: Worker, tmp_path: Path) -> None:
    grey, colours = {"type": "depth", "image": a_map()}, {"type": "depth", "image": a_view()}
    refused = await controlled.run({"id": "control", "input": JOB | {"control": [grey, colours]}})
    assert '"control[1].image"' in refused["error"]
    assert "fetch_models.py Depth-Anything-V2-Small" in refused["error"]
    with_map = await pixels_of(controlled, control=grey)
    asked = {"op": "capabilities"}
    before = await controlled.run({"id": "ask", "input": asked})

    folder = tmp_path / "volume" / PREPROCESSOR_FOLDER / "small"
    save_depth_model(folder)
    after = await controlled.run({"id": "ask", "input": asked})
    assert [answer["limits"]["maps_made"] for answer in (before, after)] == [["canny"], ["canny", "depth"]]
    assert await pixels_of(controlled, control=grey) == with_map  # a map stays what it is
    made = await pixels_of(controlled, control=colours)
    found = DepthModels(folder.parent).find()
    assert found is not None
    picture = Image.open(io.BytesIO(base64.b64decode(a_view()))).convert("RGB")
    by_hand = load_depth(found).map_of(picture, device="cpu")
    assert made == await pixels_of(controlled, control={"type": "depth", "image": base64_of(by_hand)})

    cached = {"control": colours, "cache": True}
    first, again = [await controlled.run({"id": "control", "input": JOB | cached}) for _ in range(2)]
    save_depth_model(folder, seed=6)  # another model, other maps
    other = await controlled.run({"id": "control", "input": JOB | cached})
    assert [result["cached"] for result in (first, again, other)] == [False, True, False]
    assert other["images"][0]["sha256"] != first["images"][0]["sha256"]


async def test_a_photograph_is_no_pose(controlled: Worker) -> None:
    refused = await controlled.run({"id": "control", "input": JOB | {"control": {"type": "pose", "image": a_view()}}})
    assert '"control[0].image"' in refused["error"]
    assert "DWPose" in refused["error"]


async def test_it_goes_with_other_fields_and_is_made_once(controlled: Worker, tmp_path: Path) -> None:
    job = JOB | {"control": {"type": "tile", "image": a_map()}, "num_images": 2, "upscale": 2, "cache": True}
    first, again = [await controlled.run({"id": "control", "input": job}) for _ in range(2)]
    assert [result.get("cached") for result in (first, again)] == [False, True], first
    assert [(image["width"], image["seed"]) for image in first["images"]] == [(128, 7), (128, 8)]
    assert await pixels_of(controlled) == await pixels_of(controlled)  # a prompt alone is as before
    shutil.rmtree(tmp_path / "volume" / "controlnets")
    gone = await controlled.run({"id": "control", "input": job})
    assert '"model_unavailable"' in gone["error"]
    assert "fetch_models.py" in gone["error"]


async def test_a_broken_controlnet_says_so(controlled: Worker, tmp_path: Path) -> None:
    (weights,) = (tmp_path / "volume" / "controlnets" / "union").glob("*.safetensors")
    weights.write_bytes(b"broken")
    result = await controlled.run({"id": "control", "input": JOB | {"control": {"type": "pose", "image": a_map()}}})
    assert '"model_unavailable"' in result["error"]
    assert "fetch it again" in result["error"]
