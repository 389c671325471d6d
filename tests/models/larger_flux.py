"""A random FLUX.1 of 300 M parameters with the autoencoder of the real one, and what the catalogue would say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel

from flux_engine.models import catalog
from flux_engine.models.lora.names import linear_shapes
from flux_engine.models.spec import ModelSpec, TransformerShape
from tests.models.architectures import ARCHITECTURES
from tests.models.tiny_flux import random_flux

SHAPE: Final = {"num_layers": 4, "num_single_layers": 9, "num_attention_heads": 8, "attention_head_dim": 128}


def _transformer() -> Any:
    return FluxTransformer2DModel(
        **SHAPE,
        in_channels=64,
        joint_attention_dim=96,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )


def _spec() -> ModelSpec:
    with init_empty_weights(include_buffers=True):
        transformer = _transformer()
    linear = [layer.weight.numel() for layer in transformer.modules() if isinstance(layer, torch.nn.Linear)]
    return replace(
        catalog.FLUX_TINY,
        name="flux-300m",
        limits=replace(catalog.FLUX_TINY.limits, id="flux-300m", side=512, max_pixels=768 * 768),
        transformer=replace(
            catalog.FLUX_TINY.transformer,
            parameters=sum(weight.numel() for weight in transformer.parameters()),
            linear_parameters=sum(linear),
            largest_layer=max(linear),
        ),
        vae=catalog.FLUX_1_DEV.vae,
        vae_channels=catalog.FLUX_1_DEV.vae_channels,
        shape=TransformerShape(
            width=1024,
            blocks=13,
            token_weights=float(sum(linear)),
            linear_sides=sum(sum(shape) for shape in linear_shapes(transformer).values()),
        ),
    )


LARGER_FLUX: Final = _spec()


def save_larger_flux(folder: Path) -> Path:
    """Write it in float32, as an ordinary diffusers folder."""
    torch.manual_seed(0)
    pipeline = random_flux()
    vae = ARCHITECTURES["FLUX.1-dev"]["vae"]()
    vae.register_to_config(shift_factor=0.1159, scaling_factor=0.3611)
    pipeline.register_modules(transformer=_transformer(), vae=vae)
    pipeline.save_pretrained(folder)
    return folder
