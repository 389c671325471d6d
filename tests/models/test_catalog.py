"""The catalogue's figures against the real architectures, built without weights."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from accelerate import init_empty_weights

from flux_engine.models.catalog import CATALOG, ModelSpec, find
from flux_engine.models.lora.names import linear_shapes
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.planning.seconds import step_flop
from flux_engine.settings import Profile
from tests.models.architectures import ARCHITECTURES


def spec_of(name: str) -> ModelSpec:
    spec = find(name)
    assert spec is not None
    return spec


def empty(build: Any) -> Any:
    with init_empty_weights(include_buffers=True):
        return build()


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.name)
def test_the_classes_exist(spec: ModelSpec) -> None:
    for name in (spec.pipeline_class, spec.image_to_image_class, spec.inpaint_class):
        assert name is None or hasattr(diffusers, name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plans_count_the_bytes_of_the_real_architectures(name: str) -> None:
    spec, card = spec_of(name), find_card("H200")
    assert card is not None
    models = {component: empty(build) for component, build in ARCHITECTURES[name].items()}
    assert set(models) == {component.name for component in spec.components}
    profiles: tuple[Profile, ...] = ("quality", "memory")
    for profile in profiles:
        plan = ModelOptimizer().plan(card, spec, Preferences(profile=profile))
        for part in plan.parts:
            expected = _bytes(models[part.component], is_quantised=part.quantisation != "none")
            assert part.bytes == pytest.approx(expected, rel=0.01), part


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_shape_of_each_transformer_is_that_of_its_class(name: str) -> None:
    spec = spec_of(name)
    model = empty(ARCHITECTURES[name]["transformer"])
    config = model.config
    assert spec.shape.width == config.num_attention_heads * config.attention_head_dim
    assert spec.shape.blocks == config.num_layers + config.num_single_layers
    assert spec.shape.token_weights == pytest.approx(_token_weights(model), rel=0.01)
    sides = sum(sum(shape) for shape in linear_shapes(model).values())
    assert spec.shape.linear_sides == pytest.approx(sides, rel=0.01)
    assert spec.transformer.largest_layer == max(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_decoder_is_as_wide_as_the_plan_assumes(name: str) -> None:
    assert empty(ARCHITECTURES[name]["vae"]).config.block_out_channels[0] == spec_of(name).vae_channels


def test_a_step_of_flux_1_is_74_tflop() -> None:
    assert sum(step_flop(spec_of("FLUX.1-dev"), pixels=1024 * 1024)) == pytest.approx(74.4e12, rel=0.01)


def _bytes(model: torch.nn.Module, *, is_quantised: bool) -> int:
    """Two bytes a parameter, and one for the weights of Linear layers where they are quantised."""
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    )
    return 2 * sum(weight.numel() for weight in model.parameters()) - (linear if is_quantised else 0)


def _token_weights(model: torch.nn.Module) -> int:
    """Weights of the blocks that an image token meets: no text stream, no modulation."""
    foreign = ("add_", "_context", "txt_mode_blocks", "norm", "to_add_out", "image_cond")
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "blocks." in name and not any(word in name for word in foreign)
    )
