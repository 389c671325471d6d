"""FLUX with random weights, made where it runs: no byte is read, and time and memory do not depend on values.

Layers are filled one by one and quantised as they are, so that a card holds in 8 bits what it would not hold whole.
The same seed gives the same weights in every scheme.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.gpu_sections.scale import Scale
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.tuning.libraries import import_diffusers
from flux_engine.models.tuning.quantisation import config_of_layer
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Quantisation

SPREAD: Final = 0.02


def transformer(scale: Scale, scheme: Quantisation = "none") -> Any:
    return _made(scale, "transformer", scheme)


def text_encoder(scale: Scale) -> Any:
    """The largest one: T5."""
    return _made(scale, "text_encoder_2", "none")


def autoencoder(scale: Scale) -> Any:
    vae = _made(scale, "vae", "none")
    vae.register_to_config(shift_factor=0.1159, scaling_factor=0.3611)
    return vae


def pipeline_of(scale: Scale, scheme: Quantisation = "none") -> Any:
    """A FluxPipeline that takes embeddings: text encoders are measured apart."""
    diffusers = import_diffusers()
    absent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        transformer=transformer(scale, scheme),
        vae=autoencoder(scale),
        **absent,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def embeddings(scale: Scale, module: Any, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Of a prompt that nobody wrote; by default in the scale's dtype."""
    generator = torch.Generator().manual_seed(1)
    tokens, config = scale.spec.limits.max_sequence_length, module.config
    made = {
        "prompt_embeds": torch.randn(1, tokens, config.joint_attention_dim, generator=generator),
        "pooled_prompt_embeds": torch.randn(1, config.pooled_projection_dim, generator=generator),
    }
    return {name: tensor.to(scale.device, dtype or getattr(torch, scale.dtype)) for name, tensor in made.items()}


@torch.no_grad()
def velocity(scale: Scale, module: Any, *, side: int, dtype: torch.dtype | None = None) -> Tensor:
    """One call of the transformer, always of the same input; `dtype` is its own, by default the scale's."""
    generator = torch.Generator().manual_seed(2)
    dtype = dtype or getattr(torch, scale.dtype)
    width = side // 16
    latents = torch.randn(1, width * width, module.config.in_channels, generator=generator)
    text = embeddings(scale, module, dtype=dtype)
    places = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(width), indexing="ij"), dim=-1).reshape(-1, 2)
    ids = torch.cat([torch.zeros(width * width, 1), places], dim=1)
    arguments = {
        "hidden_states": latents.to(scale.device, dtype),
        "encoder_hidden_states": text["prompt_embeds"],
        "pooled_projections": text["pooled_prompt_embeds"],
        "timestep": torch.tensor([0.6], device=scale.device, dtype=dtype),
        "guidance": torch.tensor([3.5], device=scale.device),
        "img_ids": ids.to(scale.device, dtype),
        "txt_ids": torch.zeros(scale.spec.limits.max_sequence_length, 3, device=scale.device, dtype=dtype),
    }
    made: Tensor = module(**arguments, return_dict=False)[0]
    return made


def _made(scale: Scale, component: str, scheme: Quantisation) -> Any:
    build = _tiny_builder(component) if scale.spec is FLUX_TINY else _published_builder(component)
    with torch.device("meta"):
        module = build().to(getattr(torch, scale.dtype)).eval().requires_grad_(False)
    generator = torch.Generator(scale.device).manual_seed(0)
    for name, layer in module.named_modules():
        if list(layer.parameters(recurse=False)):
            layer.to_empty(device=scale.device, recurse=False)
            _fill(layer, generator)
            if scheme != "none" and isinstance(layer, nn.Linear):
                _quantise(layer, config_of_layer(name, scheme))
    return module


def _published_builder(component: str) -> Callable[[], Any]:
    import_diffusers()
    from tests.models.architectures import ARCHITECTURES

    return ARCHITECTURES["FLUX.1-dev"][component]


def _tiny_builder(component: str) -> Callable[[], Any]:
    diffusers = import_diffusers()
    import transformers

    folder = BUNDLED_FOLDER / component
    if component.startswith("text_encoder"):
        config = transformers.T5Config.from_pretrained(folder)
        return lambda: transformers.T5EncoderModel(config)
    kind = diffusers.FluxTransformer2DModel if component == "transformer" else diffusers.AutoencoderKL
    fields = json.loads((folder / "config.json").read_text())
    return lambda: kind.from_config(fields)


@torch.no_grad()
def _fill(layer: nn.Module, generator: torch.Generator) -> None:
    """Weights of matrices are small and random, those of norms one, biases zero."""
    for name, weight in layer.named_parameters(recurse=False):
        if name == "bias":
            weight.zero_()
        elif weight.dim() < 2:
            weight.fill_(1.0)
        else:
            fan_in = weight[0].numel()
            spread = SPREAD if isinstance(layer, nn.Linear) else fan_in**-0.5
            weight.normal_(0.0, spread, generator=generator)


def _quantise(layer: nn.Linear, config: Any) -> None:
    from torchao.quantization import quantize_

    quantize_(nn.Sequential(layer), config)
