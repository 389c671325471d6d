"""What the layers of a FLUX transformer are called by those who train LoRAs.

Everything is data. `BLOCKS` and `LAYERS` list, for each layer of diffusers' model, the names that others give it: Black
Forest Labs' own code, which kohya, ComfyUI, ai-toolkit and OneTrainer follow, DiffSynth, mflux, XLabs, older diffusers.
Where others train one fused layer and diffusers has several, or the other way round, the table says which rows of a
trained "up" matrix belong to which rows of a layer. `layer_names` turns it into one look-up for one model of any size.

Names are looked up with underscores in place of dots, since some trainers write them so. Prefixes of trainers and
wrappers of compilers are not part of a name: see `keys`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int]  # (out_features, in_features)

QKV: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
QKV_AND_MLP: Final = (*QKV, "proj_mlp", "attn.to_qkv_mlp_proj")  # FLUX.1 has four layers, FLUX.2 the last, fused
SINGLE_OUT: Final = ("proj_out", "attn.to_out")
ATTENTION_OUT: Final = ("attn.to_out.0",)
CONTEXT_OUT: Final = ("attn.to_add_out",)
IMAGE_MLP: Final = (("ff.net.0.proj", "ff.linear_in"), ("ff.net.2", "ff.linear_out"))
TEXT_MLP: Final = (
    ("ff_context.net.0.proj", "ff_context.linear_in"),
    ("ff_context.net.2", "ff_context.linear_out"),
)

Layers = Mapping[str, tuple[str, ...]]  # another name: the layers of diffusers that it stands for, in order of rows

FLUX_3: Final[Layers] = {
    "q_proj": QKV[:1],
    "k_proj": QKV[1:2],
    "v_proj": QKV[2:],
    "attn_out": ATTENTION_OUT,
    "mlp_in": ("ff.linear_in",),
    "mlp_out": ("ff.linear_out",),
}

BLOCKS: Final[tuple[tuple[str, tuple[str, ...], Layers], ...]] = (  # diffusers' prefix, the others', layers in a block
    (
        "transformer_blocks",
        ("double_blocks", "blocks", "sformer_blocks"),
        {
            # Black Forest Labs, kohya, ComfyUI, ai-toolkit, OneTrainer
            "img_attn.qkv": QKV,
            "txt_attn.qkv": ADDED_QKV,
            "img_attn.proj": ATTENTION_OUT,
            "txt_attn.proj": CONTEXT_OUT,
            "img_mlp.0": IMAGE_MLP[0],
            "img_mlp.2": IMAGE_MLP[1],
            "txt_mlp.0": TEXT_MLP[0],
            "txt_mlp.2": TEXT_MLP[1],
            "img_mod.lin": ("norm1.linear",),
            "txt_mod.lin": ("norm1_context.linear",),
            # XLabs
            "processor.qkv_lora1": QKV,
            "processor.qkv_lora2": ADDED_QKV,
            "processor.proj_lora1": ATTENTION_OUT,
            "processor.proj_lora2": CONTEXT_OUT,
            # DiffSynth
            "attn.a_to_qkv": QKV,
            "attn.b_to_qkv": ADDED_QKV,
            "attn.a_to_q": QKV[:1],
            "attn.a_to_k": QKV[1:2],
            "attn.a_to_v": QKV[2:],
            "attn.b_to_q": ADDED_QKV[:1],
            "attn.b_to_k": ADDED_QKV[1:2],
            "attn.b_to_v": ADDED_QKV[2:],
            "attn.a_to_out": ATTENTION_OUT,
            "attn.b_to_out": CONTEXT_OUT,
            "ff_a.0": IMAGE_MLP[0],
            "ff_a.2": IMAGE_MLP[1],
            "ff_b.0": TEXT_MLP[0],
            "ff_b.2": TEXT_MLP[1],
            "norm1_a.linear": ("norm1.linear",),
            "norm1_b.linear": ("norm1_context.linear",),
            # diffusers with fused projections, OneTrainer with fused groups
            "attn.to_qkv": QKV,
            "attn.to_added_qkv": ADDED_QKV,
            "attn.qkv": QKV,
            "attn.added_qkv": ADDED_QKV,
            # attention processors of older diffusers
            "attn.processor.to_q_lora": QKV[:1],
            "attn.processor.to_k_lora": QKV[1:2],
            "attn.processor.to_v_lora": QKV[2:],
            "attn.processor.to_out_lora": ATTENTION_OUT,
            "attn.processor.add_q_proj_lora": ADDED_QKV[:1],
            "attn.processor.add_k_proj_lora": ADDED_QKV[1:2],
            "attn.processor.add_v_proj_lora": ADDED_QKV[2:],
            "attn.processor.to_add_out_lora": CONTEXT_OUT,
            # mflux
            "attn.to_out": ATTENTION_OUT,
            "ff.linear1": IMAGE_MLP[0],
            "ff.linear2": IMAGE_MLP[1],
            "ff_context.linear1": TEXT_MLP[0],
            "ff_context.linear2": TEXT_MLP[1],
        },
    ),
    (
        "single_transformer_blocks",
        ("single_blocks",),
        {
            "linear1": QKV_AND_MLP,
            "linear2": SINGLE_OUT,
            "modulation.lin": ("norm.linear",),
            "processor.qkv_lora": QKV,
            "processor.proj_lora": ("proj_out",),
            "to_qkv_mlp": QKV_AND_MLP,
            "a_to_q": QKV[:1],
            "a_to_k": QKV[1:2],
            "a_to_v": QKV[2:],
            "proj_in_besides_attn": ("proj_mlp",),
            "attn.to_qkv": QKV,
            "attn.qkv": QKV,
            "qkv_mlp": QKV_AND_MLP,
            "attn.processor.to_q_lora": QKV[:1],
            "attn.processor.to_k_lora": QKV[1:2],
            "attn.processor.to_v_lora": QKV[2:],
            "attn.to_out.0": ("attn.to_out",),
            **FLUX_3,
        },
    ),
    ("mode_blocks.image", ("content_mode_blocks.image",), FLUX_3),
    ("mode_blocks.image_cond", ("content_mode_blocks.image_cond",), FLUX_3),
    ("txt_mode_blocks", (), FLUX_3),
)
LAYERS: Final[Layers] = {  # outside of blocks
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    **{
        f"{theirs}.{their_layer}": tuple(f"{ours}.{our_layer}" for ours in embedders)
        for their_layer, our_layer in (("in_layer", "linear_1"), ("out_layer", "linear_2"))
        for theirs, embedders in (
            ("time_in", ("time_text_embed.timestep_embedder", "time_guidance_embed.timestep_embedder")),
            ("guidance_in", ("time_text_embed.guidance_embedder", "time_guidance_embed.guidance_embedder")),
            ("vector_in", ("time_text_embed.text_embedder",)),
        )
    },
    "time_embedder.timestep_embedder.0": ("time_text_embed.timestep_embedder.linear_1",),
    "time_embedder.timestep_embedder.2": ("time_text_embed.timestep_embedder.linear_2",),
    "guidance_embedder.timestep_embedder.0": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_embedder.timestep_embedder.2": ("time_text_embed.guidance_embedder.linear_2",),
    "pooled_text_embedder.0": ("time_text_embed.text_embedder.linear_1",),
    "pooled_text_embedder.2": ("time_text_embed.text_embedder.linear_2",),
    "time_guidance_embed.linear_1": ("time_guidance_embed.timestep_embedder.linear_1",),
    "time_guidance_embed.linear_2": ("time_guidance_embed.timestep_embedder.linear_2",),
    "time_guidance_embed.guidance_linear_1": ("time_guidance_embed.guidance_embedder.linear_1",),
    "time_guidance_embed.guidance_linear_2": ("time_guidance_embed.guidance_embedder.linear_2",),
    "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
    "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
    "single_stream_modulation.lin": ("single_stream_modulation.linear",),
    "final_layer.linear": ("proj_out",),
    "final_proj_out": ("proj_out",),
}
HALVES_SWAPPED: Final[Layers] = {  # (shift, scale) there, (scale, shift) in diffusers
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_norm_out.linear": ("norm_out.linear",),
}

FUSED: Final = {"attn.to_qkv_mlp_proj": 3}  # layers of diffusers: so many pieces as wide as its input, and the rest
LEADING: Final = {"linear1": 3, "to_qkv_mlp": 3}  # names of which so many pieces may be trained alone: q, k, v


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a trained "up" matrix, and the rows of a layer that they change."""

    layer: str
    source: range
    target: range


@dataclass(frozen=True, slots=True)
class Target:
    """What a name stands for: its parts, in order of their rows; the first `leading` of them may stand alone."""

    parts: tuple[Part, ...]
    leading: int = 0

    @property
    def num_rows(self) -> int:
        return sum(len(part.source) for part in self.parts)


@dataclass(frozen=True, slots=True)
class LayerNames:
    """The Linear layers of one model, and every name that leads to them, with underscores."""

    shapes: Mapping[str, Shape]
    targets: Mapping[str, Target]

    def find(self, name: str) -> Target | None:
        """The layers that `name` stands for, written with dots, underscores or both."""
        return self.targets.get(flat(name))


def flat(name: str) -> str:
    """A layer's name with underscores alone."""
    return name.replace(".", "_").strip("_")


def linear_shapes(transformer: nn.Module) -> dict[str, Shape]:
    """(out_features, in_features) of every Linear layer by name, with or without adapters around it."""
    from torch import nn

    shapes = {}
    for name, module in transformer.named_modules():
        outer = name.removesuffix(".base_layer").split(".")
        is_of_adapter = any(part.startswith("lora_") or part == "base_layer" for part in outer)
        if isinstance(module, nn.Linear) and not is_of_adapter:
            shapes[name.removesuffix(".base_layer")] = (module.out_features, module.in_features)
    return shapes


def layer_names(shapes: Mapping[str, Shape]) -> LayerNames:
    """Every known name of the layers in `shapes`."""
    targets: dict[str, Target] = {}
    for name, layers, leading in _names(shapes):
        pieces = list(_pieces(layers, shapes))
        if not pieces:
            continue
        targets.setdefault(flat(name), Target(_stacked(pieces), leading))
        if len(pieces) > 1:
            for number, piece in enumerate(pieces):
                targets.setdefault(flat(f"{name}.{number}"), Target(_stacked([piece])))
    for name, (layer,) in HALVES_SWAPPED.items():
        if layer in shapes:
            rows = shapes[layer][0]
            halves = ((layer, range(rows // 2, rows)), (layer, range(rows // 2)))
            targets[flat(name)] = Target(_stacked(halves))
    return LayerNames(shapes=shapes, targets=targets)


def _names(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Each name, the layers it stands for where this model has them, and how many pieces may stand alone."""
    for layer in shapes:  # diffusers' own names first: no other may take their place
        yield layer, (layer,), 0
    for name, layers in LAYERS.items():
        yield name, layers, 0
    for ours, others, blocks in BLOCKS:
        inside = [layer.removeprefix(f"{ours}.").partition(".") for layer in shapes if layer.startswith(f"{ours}.")]
        for index, _, inner in inside:  # diffusers' layers under the others' prefixes, as DiffSynth has some
            for prefix in others:
                yield f"{prefix}.{index}.{inner}", (f"{ours}.{index}.{inner}",), 0
        for index in dict.fromkeys(index for index, _, _ in inside):
            for name, targets in blocks.items():
                layers = tuple(f"{ours}.{index}.{target}" for target in targets)
                for prefix in (*others, ours):
                    yield f"{prefix}.{index}.{name}", layers, LEADING.get(name, 0)


def _pieces(layers: Iterable[str], shapes: Mapping[str, Shape]) -> Iterator[tuple[str, range]]:
    """Those of `layers` that the model has, each with its rows; a layer that is fused in diffusers too, in pieces."""
    for layer in layers:
        if layer not in shapes:
            continue
        rows, width = shapes[layer]
        count = next((count for name, count in FUSED.items() if layer.endswith(f".{name}")), 0)
        edges = [*(width * number for number in range(count + 1)), rows] if count else [0, rows]
        yield from ((layer, range(start, end)) for start, end in pairwise(edges))


def _stacked(pieces: Iterable[tuple[str, range]]) -> tuple[Part, ...]:
    parts, start = [], 0
    for layer, target in pieces:
        parts.append(Part(layer, range(start, start + len(target)), target))
        start += len(target)
    return tuple(parts)
