"""What the layers of a FLUX transformer are called by those who train LoRAs.

Black Forest Labs' own code, kohya, XLabs and diffusers name the same layers differently, and some train one fused
layer where diffusers has three. `layer_names` turns that into one table for one model, whatever its size: a name in
any spelling -> the Linear layers, and the rows of a trained "up" matrix that belong to each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int]  # (out_features, in_features)

ADAPTER_PARTS: Final = re.compile(r"\.(lora_[A-Za-z_]+|base_layer)(\.|$)")

BLOCK_NAMES: Final = (  # diffusers' prefix, the original one, {original layer: layers of diffusers, in order of rows}
    (
        "transformer_blocks",
        "double_blocks",
        {
            "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            "img_attn.proj": ("attn.to_out.0",),
            "txt_attn.proj": ("attn.to_add_out",),
            "img_mlp.0": ("ff.net.0.proj", "ff.linear_in"),
            "img_mlp.2": ("ff.net.2", "ff.linear_out"),
            "txt_mlp.0": ("ff_context.net.0.proj", "ff_context.linear_in"),
            "txt_mlp.2": ("ff_context.net.2", "ff_context.linear_out"),
            "img_mod.lin": ("norm1.linear",),
            "txt_mod.lin": ("norm1_context.linear",),
            "processor.qkv_lora1": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "processor.qkv_lora2": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            "processor.proj_lora1": ("attn.to_out.0",),
            "processor.proj_lora2": ("attn.to_add_out",),
        },
    ),
    (
        "single_transformer_blocks",
        "single_blocks",
        {
            "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "attn.to_qkv_mlp_proj"),
            "linear2": ("proj_out", "attn.to_out"),
            "modulation.lin": ("norm.linear",),
            "processor.qkv_lora": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "processor.proj_lora": ("proj_out",),
        },
    ),
)
OTHER_NAMES: Final = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": (
        "time_text_embed.timestep_embedder.linear_1",
        "time_guidance_embed.timestep_embedder.linear_1",
    ),
    "time_in.out_layer": (
        "time_text_embed.timestep_embedder.linear_2",
        "time_guidance_embed.timestep_embedder.linear_2",
    ),
    "guidance_in.in_layer": (
        "time_text_embed.guidance_embedder.linear_1",
        "time_guidance_embed.guidance_embedder.linear_1",
    ),
    "guidance_in.out_layer": (
        "time_text_embed.guidance_embedder.linear_2",
        "time_guidance_embed.guidance_embedder.linear_2",
    ),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "final_layer.linear": ("proj_out",),
}
SWAPPED_NAME: Final = "final_layer.adaLN_modulation.1"  # (shift, scale) there, (scale, shift) in diffusers
SWAPPED_LAYER: Final = "norm_out.linear"


@dataclass(frozen=True, slots=True)
class Part:
    """A Linear layer of the model and its rows in a trained "up" matrix, one range after the other."""

    layer: str
    rows: tuple[range, ...]


@dataclass(frozen=True, slots=True)
class LayerNames:
    """The layers of one model: their shapes, and every name that leads to them, with dots and with underscores."""

    shapes: Mapping[str, Shape]
    parts: Mapping[str, tuple[Part, ...]]


def linear_shapes(transformer: nn.Module) -> dict[str, Shape]:
    """(out_features, in_features) of every Linear layer by name, with or without adapters around it."""
    from torch import nn

    shapes = {}
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and not ADAPTER_PARTS.search(name.removesuffix(".base_layer")):
            shapes[name.removesuffix(".base_layer")] = (module.out_features, module.in_features)
    return shapes


def layer_names(shapes: Mapping[str, Shape]) -> LayerNames:
    """Every known name of the layers in `shapes`."""
    parts = {layer: _stacked([layer], shapes) for layer in shapes}
    for name, layers in _original_names(shapes).items():
        present = [layer for layer in layers if layer in shapes]
        if present:
            parts.setdefault(name, _stacked(present, shapes))
    if SWAPPED_LAYER in shapes:
        rows = shapes[SWAPPED_LAYER][0]
        halves = (range(rows // 2, rows), range(rows // 2))
        parts[SWAPPED_NAME] = (Part(SWAPPED_LAYER, halves),)
    return LayerNames(shapes=shapes, parts=parts | {name.replace(".", "_"): part for name, part in parts.items()})


def _original_names(shapes: Mapping[str, Shape]) -> dict[str, tuple[str, ...]]:
    names = dict(OTHER_NAMES)
    for ours, theirs, layers in BLOCK_NAMES:
        for index in sorted({layer.split(".")[1] for layer in shapes if layer.startswith(ours + ".")}):
            for name, targets in layers.items():
                names[f"{theirs}.{index}.{name}"] = tuple(f"{ours}.{index}.{target}" for target in targets)
    return names


def _stacked(layers: list[str], shapes: Mapping[str, Shape]) -> tuple[Part, ...]:
    parts, start = [], 0
    for layer in layers:
        parts.append(Part(layer, (range(start, start + shapes[layer][0]),)))
        start += shapes[layer][0]
    return tuple(parts)
