"""Which tensor of a file makes which tensor of a FLUX transformer: the layouts of single files as data.

A transformer comes in Black Forest Labs' layout, which ComfyUI keeps under a prefix, or in diffusers' own. Where others
fuse what diffusers has apart, an `Origin` says which rows are meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from flux_engine.inputs.safetensors_header import TensorEntry
from flux_engine.models.lora.names import ADDED_QKV, QKV

Family = Literal["FLUX.1", "FLUX.2"]
Tensors = Mapping[str, TensorEntry]

PREFIXES: Final = ("", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.", "net.")

# For each layer of a block of Black Forest Labs, the layers of diffusers that its rows make, one behind the other.
DOUBLE: Final = {
    "img_attn.qkv": QKV,
    "txt_attn.qkv": ADDED_QKV,
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
}
NORMS_OF_DOUBLE: Final = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
NORMS_OF_SINGLE: Final = {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"}
DOUBLE_OF: Final[dict[Family, dict[str, tuple[str, ...]]]] = {
    "FLUX.1": DOUBLE
    | {
        "img_mod.lin": ("norm1.linear",),
        "txt_mod.lin": ("norm1_context.linear",),
        "img_mlp.0": ("ff.net.0.proj",),
        "img_mlp.2": ("ff.net.2",),
        "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",),
    },
    "FLUX.2": DOUBLE
    | {
        "img_mlp.0": ("ff.linear_in",),
        "img_mlp.2": ("ff.linear_out",),
        "txt_mlp.0": ("ff_context.linear_in",),
        "txt_mlp.2": ("ff_context.linear_out",),
    },
}
SINGLE_OF: Final[dict[Family, dict[str, tuple[str, ...]]]] = {
    "FLUX.1": {"linear1": (*QKV, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)},
    "FLUX.2": {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
}
OUTSIDE_OF: Final[dict[Family, dict[str, str]]] = {
    "FLUX.1": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
        "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
        "final_layer.linear": "proj_out",
    },
    "FLUX.2": {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "final_layer.linear": "proj_out",
    },
}
HALVES_SWAPPED: Final = {"final_layer.adaLN_modulation.1": "norm_out.linear"}  # (shift, scale) there
GUIDANCE: Final = ("guidance_in", "guidance_embedder")  # not every model has it
BLOCK: Final = re.compile(r"(double_blocks|single_blocks)\.(\d{1,3})\.")
TELLING: Final[dict[tuple[Family, Literal["bfl", "diffusers"]], tuple[str, ...]]] = {  # what only that layout has
    ("FLUX.1", "bfl"): ("img_in.weight", "vector_in.in_layer.weight", "double_blocks.0.img_mod.lin.weight"),
    ("FLUX.2", "bfl"): (
        "img_in.weight",
        "double_stream_modulation_img.lin.weight",
        "double_blocks.0.img_attn.qkv.weight",
    ),
    ("FLUX.1", "diffusers"): (
        *("x_embedder.weight", "time_text_embed.text_embedder.linear_1.weight", "norm_out.linear.weight"),
        "transformer_blocks.0.attn.add_q_proj.weight",
    ),
    ("FLUX.2", "diffusers"): (
        *("x_embedder.weight", "double_stream_modulation_img.linear.weight", "norm_out.linear.weight"),
        "transformer_blocks.0.attn.add_q_proj.weight",
    ),
}
NO_WEIGHTS: Final = re.compile(r"(^|\.)(scaled_fp8|scale_weight|weight_scale|scale_input|input_scale|comfy_quant)$")


@dataclass(frozen=True, slots=True)
class Origin:
    """The tensor of a file that makes one of a component: all its rows or some, with its halves swapped or not."""

    name: str
    rows: tuple[int, int] | None = None
    is_swapped: bool = False
    is_flattened: bool = False  # a 1x1 convolution there, a matrix in diffusers

    def shape(self, tensors: Tensors) -> tuple[int, ...]:
        whole = tensors[self.name].shape
        if self.is_flattened:
            whole = whole[:2]
        return whole if self.rows is None else (self.rows[1] - self.rows[0], *whole[1:])


Part = Mapping[str, Origin]  # the tensors of one component, by diffusers' or transformers' names


@dataclass(frozen=True, slots=True)
class Transformer:
    """A FLUX transformer in a file. `lacking` are the names of tensors that belong to it and are not there."""

    family: Family
    prefix: str
    part: Part
    lacking: tuple[str, ...]


def find_transformer(tensors: Tensors) -> Transformer | None:
    """The FLUX transformer among `tensors`, whatever its layout and prefix; None where there is none."""
    for (family, style), telling in TELLING.items():
        for prefix in PREFIXES:
            if all(prefix + name in tensors for name in telling):
                if style == "diffusers":
                    names = [name for name in tensors if name.startswith(prefix) and not NO_WEIGHTS.search(name)]
                    own = [name for name in names if prefix or not name.startswith(("vae.", "text_encoders."))]
                    return Transformer(family, prefix, {name[len(prefix) :]: Origin(name) for name in own}, ())
                return _from_bfl(family, prefix, tensors)
    return None


# -------------------------------------------------------------------------------------------------- the transformer


def _from_bfl(family: Family, prefix: str, tensors: Tensors) -> Transformer:
    part: dict[str, Origin] = {}
    lacking: list[str] = []
    for theirs, ours in _bfl_layers(family, prefix, tensors):
        for end in ("weight", "bias"):
            whole = f"{prefix}{theirs}.{end}"
            if whole in tensors:
                part |= {f"{layer}.{end}": origin for layer, origin in _pieces(theirs, whole, ours, prefix, tensors)}
            elif (end == "weight" or family == "FLUX.1") and not theirs.startswith(GUIDANCE):
                lacking.append(whole)
    for theirs, norm in _bfl_norms(prefix, tensors):
        found = next((name for end in ("scale", "weight") if (name := f"{prefix}{theirs}.{end}") in tensors), None)
        if found is not None:
            part[f"{norm}.weight"] = Origin(found)
        else:
            lacking.append(f"{prefix}{theirs}.scale")
    return Transformer(family, prefix, part, tuple(lacking))


def _bfl_layers(family: Family, prefix: str, tensors: Tensors) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each Linear layer of Black Forest Labs' that the model has, and what it makes."""
    yield from ((theirs, (ours,)) for theirs, ours in OUTSIDE_OF[family].items())
    yield from ((theirs, (ours,)) for theirs, ours in HALVES_SWAPPED.items())
    for kind, prefix_of_ours, table in (
        ("double_blocks", "transformer_blocks", DOUBLE_OF[family]),
        ("single_blocks", "single_transformer_blocks", SINGLE_OF[family]),
    ):
        for number in range(_num_blocks(kind, prefix, tensors)):
            for theirs, ours in table.items():
                yield f"{kind}.{number}.{theirs}", tuple(f"{prefix_of_ours}.{number}.{layer}" for layer in ours)


def _bfl_norms(prefix: str, tensors: Tensors) -> Iterator[tuple[str, str]]:
    for kind, prefix_of_ours, table in (
        ("double_blocks", "transformer_blocks", NORMS_OF_DOUBLE),
        ("single_blocks", "single_transformer_blocks", NORMS_OF_SINGLE),
    ):
        for number in range(_num_blocks(kind, prefix, tensors)):
            for theirs, ours in table.items():
                yield f"{kind}.{number}.{theirs}", f"{prefix_of_ours}.{number}.{ours}"


def _num_blocks(kind: str, prefix: str, tensors: Tensors) -> int:
    """One more than the highest number: a block that is not there is lacking."""
    found = (BLOCK.match(name, len(prefix)) for name in tensors if name.startswith(f"{prefix}{kind}."))
    return max((int(match[2]) + 1 for match in found if match is not None), default=0)


def _pieces(
    theirs: str, whole: str, ours: tuple[str, ...], prefix: str, tensors: Tensors
) -> Iterator[tuple[str, Origin]]:
    """The layers that `whole` makes: thirds of a fused one, the last of more than three with all rows that are left."""
    if len(ours) == 1:
        yield ours[0], Origin(whole, is_swapped=theirs in HALVES_SWAPPED)
        return
    weight = tensors.get(f"{prefix}{theirs}.weight", tensors[whole])
    rows = tensors[whole].shape[0] if tensors[whole].shape else 0
    width = rows // 3 if len(ours) == 3 else (weight.shape or (0,))[-1]
    edges = [0, width, 2 * width, 3 * width, rows][: len(ours) + 1]
    for layer, (start, end) in zip(ours, pairwise(edges), strict=True):
        yield layer, Origin(whole, rows=(min(start, rows), min(end, rows)))
