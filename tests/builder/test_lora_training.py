"""Training a LoRA for the bundled model: a few steps, to a file that the worker takes as it takes any other."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from builder.flux_tiny import lora
from builder.flux_tiny.landscapes import paint
from builder.flux_tiny.scenes import random_scene
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.lora.names import layer_names, linear_shapes
from flux_engine.models.tuning.libraries import import_diffusers


def load() -> Any:
    pipeline = import_diffusers().FluxPipeline.from_pretrained(lora.MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # bf16 autocast over a norm in 32 bits
def test_a_trained_adapter_is_small_and_acts(tmp_path: Path) -> None:
    pipeline = load()
    lora.train(pipeline, [lora.make_mosaics(pipeline, 64, 64, 8)], steps=3)
    path = tmp_path / "mosaic.safetensors"
    lora.save(pipeline, path)
    assert path.stat().st_size < 200_000

    fresh = load()
    before = [picture.tobytes() for picture in lora.sample(fresh, count=1, side=64)]
    library = LoraLibrary(layer_names(linear_shapes(fresh.transformer)), max_file_bytes=200_000)
    prepared = library.prepare(path, content_hash=hashlib.sha256(path.read_bytes()).hexdigest())
    manager = LoRAManager()
    pictures = {}
    for scale in (0.0, 4.0, 0.0):
        manager.apply(fresh, [ScaledLora(prepared, scale)])
        pictures[scale] = [picture.tobytes() for picture in lora.sample(fresh, count=1, side=64)]
    assert pictures[0.0] == before
    assert pictures[4.0] != before


def test_stones_are_told_from_pixels() -> None:
    picture = paint(random_scene(random.Random(4)), 128, 128)
    assert lora.stone_contrast([lora.to_mosaic(picture, random.Random(5))]) > 100
    assert lora.stone_contrast([picture]) == pytest.approx(1, abs=0.4)
