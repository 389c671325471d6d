"""Depth models of the real classes, small and random: found on a volume, loaded, near in white."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
)

from flux_engine.errors import ModelUnavailable
from flux_engine.generate.control import ControlParts
from flux_engine.models.beside.controlnets import ControlNet
from flux_engine.models.beside.depth import DepthModels, load_depth

PICTURE = Image.radial_gradient("L").resize((90, 60)).convert("RGB")
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 28,
    "patch_size": 14,
}


def depth_anything(**changes: Any) -> Any:
    backbone = Dinov2Config(
        **SMALL,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        **changes,
    )
    return DepthAnythingForDepthEstimation(config)


def dpt() -> Any:
    config = DPTConfig(
        **SMALL,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    return DPTForDepthEstimation(config)


def save_depth_model(folder: Path, *, seed: int = 4, **changes: Any) -> None:
    torch.manual_seed(seed)
    save(depth_anything(**changes), folder)


def save(network: Any, folder: Path) -> None:
    for weight in network.parameters():  # as they begin, what is seen makes next to no difference
        torch.nn.init.normal_(weight, std=0.2)
    last = network.head.conv3 if hasattr(network.head, "conv3") else network.head.head[-2]
    torch.nn.init.normal_(last.weight, std=0.02)
    torch.nn.init.constant_(last.bias, 1.0)  # what follows cuts off below 0
    network.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)


@pytest.mark.parametrize("build", [depth_anything, dpt])
def test_a_map_is_grey_and_as_large_as_its_picture(tmp_path: Path, build: Any) -> None:
    torch.manual_seed(5)
    save(build(), tmp_path / "depth")
    found = DepthModels(tmp_path).find()
    assert found is not None
    loaded = load_depth(found)
    made = np.asarray(loaded.map_of(PICTURE, device="cpu"))
    assert made.shape == (60, 90, 3)
    assert (made.max(-1) == made.min(-1)).all()
    assert made.max() > made.min() + 100  # from black to white
    oblong = loaded.map_of(PICTURE.resize((600, 8)), device="cpu")
    assert oblong.size == (600, 8)


def test_metres_are_turned_round(tmp_path: Path) -> None:
    """Near is white, whichever way a model counts."""
    maps = []
    for kind in ("relative", "metric"):
        save_depth_model(tmp_path / kind / "one", depth_estimation_type=kind, max_depth=1)
        found = DepthModels(tmp_path / kind).find()
        assert found is not None
        maps.append(np.asarray(load_depth(found).map_of(PICTURE, device="cpu")).astype(float).ravel())
    assert np.corrcoef(maps[0], maps[1])[0, 1] < 0


def test_what_is_found_counts_its_bytes(tmp_path: Path) -> None:
    save_depth_model(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("[]")
    found = DepthModels(tmp_path).find()
    assert found is not None
    assert found.folder.name == "b"
    assert found.bytes == (tmp_path / "b" / "model.safetensors").stat().st_size
    small, large = (ControlNet(folder=tmp_path, revision="1", is_union=True, bytes=size) for size in (1, 2**40))
    assert ControlParts(network=small, depth=found).bytes == found.device_bytes > found.bytes
    assert ControlParts(network=large, depth=found).bytes == large.bytes  # one after the other
    assert DepthModels(tmp_path / "missing").find() is None


@pytest.mark.parametrize("broken", ["model.safetensors", "preprocessor_config.json"])
def test_a_broken_one_says_so(tmp_path: Path, broken: str) -> None:
    save_depth_model(tmp_path / "depth")
    (tmp_path / "depth" / broken).write_bytes(b"broken")
    found = DepthModels(tmp_path).find()
    assert found is not None
    with pytest.raises(ModelUnavailable, match="fetch it again") as refusal:
        load_depth(found)
    assert str(tmp_path) not in refusal.value.message
