"""FLUX.1 and FLUX.2 transformers with random weights, small enough for a forward pass in milliseconds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor

from flux_engine.models.lora.file import LoraFile
from flux_engine.models.lora.format import PreparedLora, prepare_lora
from flux_engine.models.lora.names import LayerNames, layer_names, linear_shapes

TEXT, SIDE = 5, 4


def flux1_transformer(**changes: Any) -> Any:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 4,
        "joint_attention_dim": 96,
        "pooled_projection_dim": 64,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 14, 14),
    }
    return FluxTransformer2DModel(**(sizes | changes)).eval()


def flux2_transformer() -> Any:
    torch.manual_seed(2)
    return Flux2Transformer2DModel(
        in_channels=128,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=96,
        axes_dims_rope=(8, 8, 8, 8),
    ).eval()


def pipeline_of(transformer: Any) -> Any:
    """A real pipeline that has nothing but a transformer."""
    parts = dict.fromkeys(("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    return FluxPipeline(transformer=transformer, **parts)


@torch.no_grad()
def forward(transformer: Any) -> Tensor:
    """The velocity at one fixed point."""
    generator = torch.Generator().manual_seed(3)
    is_second = isinstance(getattr(transformer, "_orig_mod", transformer), Flux2Transformer2DModel)
    axes, channels = (4, 128) if is_second else (3, 64)
    arguments = {
        "hidden_states": torch.randn(1, SIDE * SIDE, channels, generator=generator),
        "encoder_hidden_states": torch.randn(1, TEXT, 96, generator=generator),
        "timestep": torch.tensor([0.6]),
        "guidance": torch.tensor([3.0]),
        "img_ids": torch.stack([torch.arange(SIDE * SIDE).float() // (axis + 1) for axis in range(axes)], dim=1),
        "txt_ids": torch.zeros(TEXT, axes),
    }
    if not is_second:
        arguments["pooled_projections"] = torch.randn(1, 64, generator=generator)
    result: Tensor = transformer(**arguments, return_dict=False)[0]
    return result


def names_of(transformer: Any) -> LayerNames:
    return layer_names(linear_shapes(transformer))


def random_matrices(
    layers: dict[str, tuple[int, int]], *, rank: int = 4, seed: int = 0
) -> dict[str, tuple[Tensor, Tensor]]:
    """{layer: (down, up)} for {layer: (out_features, in_features)}, strong enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(rank, width, generator=generator) * width**-0.5,
            torch.randn(height, rank, generator=generator) * 0.2,
        )
        for name, (height, width) in layers.items()
    }


def diffusers_file(matrices: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The matrices as diffusers writes them."""
    tensors = {}
    for name, (down, up) in matrices.items():
        tensors[f"transformer.{name}.lora_A.weight"] = down
        tensors[f"transformer.{name}.lora_B.weight"] = up
    return tensors


def random_lora(transformer: Any, *, seed: int, rank: int = 4, only: str = "") -> PreparedLora:
    layers = {name: shape for name, shape in linear_shapes(transformer).items() if only in name}
    file = LoraFile(diffusers_file(random_matrices(layers, rank=rank, seed=seed)), {})
    return prepare_lora(file, names_of(transformer), content_hash=f"{seed:064x}")


def save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
