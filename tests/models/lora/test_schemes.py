"""From one adapter, every naming scheme: each tensor finds its layer, and the picture is the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from flux_engine.models.lora.file import LoraFile
from flux_engine.models.lora.format import prepare_lora
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.lora.names import LayerNames, layer_names, linear_shapes
from flux_engine.models.lora.parts import LoraLayer
from flux_engine.models.weights import BUNDLED_FOLDER
from tests.models.architectures import ARCHITECTURES
from tests.models.lora.schemes import SCHEMES, Adapter
from tests.models.tiny import flux2_transformer, forward, names_of, pipeline_of, random_matrices, save, sha256_of
from tests.models.tiny_flux import paint

MODELS = (  # the others have layers of these; the slow ones are klein-4B's with more blocks
    "FLUX.1-dev",
    "FLUX.2-klein-4B",
    pytest.param("FLUX.2-klein-9B", marks=pytest.mark.slow),
    pytest.param("FLUX.2-dev", marks=pytest.mark.slow),
)
SOME_LAYERS = ("XLabs", "XLabs in ComfyUI", "diffusers' attention processors")
ONLY_FLUX_1 = ("XLabs", "XLabs in ComfyUI")


@cache
def names_at_full_size(model: str) -> LayerNames:
    with torch.device("meta"):
        return layer_names(linear_shapes(ARCHITECTURES[model]["transformer"]()))


@cache
def random_input(width: int) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(9))


def delta(layer: LoraLayer) -> torch.Tensor:
    """What a layer's change does to a random input."""
    return layer.up.float() @ (layer.down.float() @ random_input(layer.down.shape[1]))


@pytest.mark.parametrize("model", MODELS)
def test_every_name_finds_its_layer_in_the_published_models(model: str) -> None:
    names = names_at_full_size(model)
    adapter: Adapter = random_matrices(dict(names.shapes), rank=1)
    expected = {layer: delta(LoraLayer(*matrices)) for layer, matrices in adapter.items()}
    for scheme, write in SCHEMES.items():
        if scheme in ONLY_FLUX_1 and not model.startswith("FLUX.1"):
            continue
        layers = prepare_lora(LoraFile(write(adapter), {}), names, content_hash="x").layers
        assert set(layers) == set(names.shapes) or scheme in SOME_LAYERS, scheme
        assert len(layers) > len(names.shapes) // 6, scheme
        for layer, found in layers.items():
            assert (delta(found) - expected[layer]).abs().max() < 1e-4, (scheme, layer)


@pytest.fixture(scope="module")
def flux_tiny() -> Any:
    pipeline = FluxPipeline.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_every_scheme_paints_the_same_picture(flux_tiny: Any, tmp_path: Path) -> None:
    shapes = linear_shapes(flux_tiny.transformer)
    library, manager = LoraLibrary(layer_names(shapes), max_file_bytes=10**8), LoRAManager(mode="slot")
    attention = {layer: shape for layer, shape in shapes.items() if ".attn." in layer}
    for layers in (shapes, attention):
        adapter = {layer: (down, up * 0.5) for layer, (down, up) in random_matrices(layers).items()}
        plain, pictures = paint(flux_tiny, side=64, steps=1), {}
        for scheme, write in SCHEMES.items():
            if scheme not in SOME_LAYERS:
                path = save(write(adapter), tmp_path / "style.safetensors")
                lora = library.prepare(path, content_hash=sha256_of(path))
                manager.apply(flux_tiny, [ScaledLora(lora, 1.0)])
                pictures[scheme] = paint(flux_tiny, side=64, steps=1)
        manager.apply(flux_tiny)
        wanted = pictures.pop(next(iter(SCHEMES)))
        assert np.abs(wanted - plain).mean() > 0.01
        assert len(pictures) > 30
        assert {scheme: d for scheme, p in pictures.items() if (d := float(np.abs(p - wanted).max())) >= 1e-3} == {}


def test_every_scheme_gives_the_same_output_on_flux_2(tmp_path: Path) -> None:
    transformer = flux2_transformer()
    plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager(mode="slot")
    adapter = random_matrices(linear_shapes(transformer))
    names, outputs = names_of(transformer), {}
    for scheme, write in SCHEMES.items():
        if scheme not in SOME_LAYERS:
            lora = prepare_lora(LoraFile(write(adapter), {}), names, content_hash=scheme)
            manager.apply(pipeline, [ScaledLora(lora, 1.0)])
            outputs[scheme] = forward(transformer)
    wanted = outputs[next(iter(SCHEMES))]
    assert (wanted - plain).abs().max() > 0.05
    assert {scheme for scheme, output in outputs.items() if (output - wanted).abs().max() >= 1e-3} == set()
