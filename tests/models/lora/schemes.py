"""One adapter in the names of every trainer and exporter, written out by hand from what they write.

An adapter is {layer of diffusers: (down, up)}. A scheme gives the file's tensors, or fewer where its trainer has names
for some layers only. Where a trainer fuses layers the matrices are laid side by side along the rank.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

Adapter = dict[str, tuple[Tensor, Tensor]]
Tensors = dict[str, Tensor]
Shape = tuple[int, int]

PEFT, KOHYA = ("lora_A", "lora_B"), ("lora_down", "lora_up")

# The layers of diffusers in Black Forest Labs' own code: fused ones with the number of the part.
DOUBLE: Final = {
    "attn.to_q": "img_attn.qkv.0",
    "attn.to_k": "img_attn.qkv.1",
    "attn.to_v": "img_attn.qkv.2",
    "attn.add_q_proj": "txt_attn.qkv.0",
    "attn.add_k_proj": "txt_attn.qkv.1",
    "attn.add_v_proj": "txt_attn.qkv.2",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
}
SINGLE: Final = {
    "attn.to_q": "linear1.0",
    "attn.to_k": "linear1.1",
    "attn.to_v": "linear1.2",
    "proj_mlp": "linear1.3",
    "proj_out": "linear2",
    "norm.linear": "modulation.lin",
    "attn.to_qkv_mlp_proj": "linear1",
    "attn.to_out": "linear2",
}
OUTSIDE: Final = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
}
XLABS: Final = {
    "img_attn.qkv": "processor.qkv_lora1",
    "txt_attn.qkv": "processor.qkv_lora2",
    "img_attn.proj": "processor.proj_lora1",
    "txt_attn.proj": "processor.proj_lora2",
    "linear2": "processor.proj_lora",
}
DIFFSYNTH: Final = {
    "img_attn.qkv": "attn.a_to_qkv",
    "txt_attn.qkv": "attn.b_to_qkv",
    "img_attn.proj": "attn.a_to_out",
    "txt_attn.proj": "attn.b_to_out",
    "img_mlp.0": "ff_a.0",
    "img_mlp.2": "ff_a.2",
    "txt_mlp.0": "ff_b.0",
    "txt_mlp.2": "ff_b.2",
    "img_mod.lin": "norm1_a.linear",
    "txt_mod.lin": "norm1_b.linear",
    "modulation.lin": "norm.linear",
    "linear1": "to_qkv_mlp",
    "linear2": "proj_out",
}
DIFFSYNTH_OUTSIDE: Final = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "final_proj_out",
    "final_layer.adaLN_modulation.1": "final_norm_out.linear",
    "time_in.in_layer": "time_embedder.timestep_embedder.0",
    "time_in.out_layer": "time_embedder.timestep_embedder.2",
    "guidance_in.in_layer": "guidance_embedder.timestep_embedder.0",
    "guidance_in.out_layer": "guidance_embedder.timestep_embedder.2",
    "vector_in.in_layer": "pooled_text_embedder.0",
    "vector_in.out_layer": "pooled_text_embedder.2",
}
MFLUX: Final = {
    "ff.net.0.proj": "ff.linear1",
    "ff.net.2": "ff.linear2",
    "ff_context.net.0.proj": "ff_context.linear1",
    "ff_context.net.2": "ff_context.linear2",
    "time_guidance_embed.timestep_embedder.linear_1": "time_guidance_embed.linear_1",
    "time_guidance_embed.timestep_embedder.linear_2": "time_guidance_embed.linear_2",
    "time_guidance_embed.guidance_embedder.linear_1": "time_guidance_embed.guidance_linear_1",
    "time_guidance_embed.guidance_embedder.linear_2": "time_guidance_embed.guidance_linear_2",
}
PROCESSORS: Final = {
    "attn.to_q": "attn.processor.to_q_lora",
    "attn.to_k": "attn.processor.to_k_lora",
    "attn.to_v": "attn.processor.to_v_lora",
    "attn.to_out.0": "attn.processor.to_out_lora",
    "attn.add_q_proj": "attn.processor.add_q_proj_lora",
}


# ------------------------------------------------------------------------------------------------ other sets of layers


def in_parts(adapter: Adapter) -> Adapter:
    """Under Black Forest Labs' names, parts of fused layers by number."""
    parts: Adapter = {}
    for layer, (down, rows) in adapter.items():
        kind, _, rest = layer.partition(".")
        index, _, inner = rest.partition(".")
        if kind == "transformer_blocks":
            name = f"double_blocks.{index}.{DOUBLE[inner]}"
        elif kind == "single_transformer_blocks":
            name = f"single_blocks.{index}.{SINGLE[inner]}"
        else:
            name = OUTSIDE[layer]
        half = len(rows) // 2
        up = torch.cat([rows[half:], rows[:half]]) if name.endswith("adaLN_modulation.1") else rows
        if name.endswith("linear1"):  # FLUX.2: fused in diffusers as well
            width = down.shape[1]
            pieces = torch.split(up, [width, width, width, len(up) - 3 * width])
            parts |= {f"{name}.{number}": (down, piece) for number, piece in enumerate(pieces)}
        else:
            parts[name] = (down, up)
    return parts


def fused(adapter: Adapter) -> Adapter:
    """Under Black Forest Labs' names, as its own code has the layers."""
    groups: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for name, matrices in in_parts(adapter).items():
        match = re.fullmatch(r"(.*(?:qkv|linear1))\.(\d)", name)
        groups.setdefault(match[1] if match else name, {})[int(match[2]) if match else 0] = matrices
    return {name: _side_by_side([parts[i] for i in sorted(parts)]) for name, parts in groups.items()}


def _side_by_side(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if all(down is parts[0][0] for down, _ in parts):
        return parts[0][0], torch.cat([up for _, up in parts])
    return torch.cat([down for down, _ in parts]), torch.block_diag(*(up for _, up in parts))  # type: ignore[no-untyped-call]


def renamed(adapter: Adapter, names: dict[str, str], *, strict: bool = False) -> Adapter:
    """With the ends of layers' names changed; `strict` keeps only those that `names` has."""
    result = {}
    for layer, matrices in adapter.items():
        old = max((end for end in names if layer == end or layer.endswith(f".{end}")), key=len, default=None)
        if old is not None:
            result[layer.removesuffix(old) + names[old]] = matrices
        elif not strict:
            result[layer] = matrices
    return result


def diffsynth(adapter: Adapter) -> Adapter:
    """DiffSynth's own model of FLUX.1."""
    result = {}
    for layer, matrices in fused(adapter).items():
        if layer in DIFFSYNTH_OUTSIDE:
            result[DIFFSYNTH_OUTSIDE[layer]] = matrices
        elif "blocks." in layer:
            result |= renamed({layer.replace("double_blocks", "blocks"): matrices}, DIFFSYNTH, strict=True)
    return result


# ----------------------------------------------------------------------------------------------------------- writing


def write(
    adapter: Adapter,
    prefix: str = "",
    words: tuple[str, str] = PEFT,
    *,
    suffix: str = ".weight",
    flat: bool = False,
    alpha: float | None = None,
    tail: str = "",
) -> Tensors:
    """{prefix + layer + tail.word suffix: matrix}; with `alpha` the "up" matrices make up for alpha / rank."""
    tensors: Tensors = {}
    for layer, (down, up) in adapter.items():
        name = prefix + (layer.replace(".", "_") if flat else layer) + tail
        factor = 1.0 if alpha is None else alpha / len(down)
        tensors |= {f"{name}.{words[0]}{suffix}": down, f"{name}.{words[1]}{suffix}": up / factor}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def wrapped(tensors: Tensors, change: Callable[[str], str]) -> Tensors:
    return {change(name): tensor for name, tensor in tensors.items()}


def numbered(adapter: Adapter) -> Tensors:
    """sd-scripts while it trains q, k and v apart: `lora_down.1.weight`, and one alpha for all."""
    tensors: Tensors = {}
    for layer, (down, up) in in_parts(adapter).items():
        match = re.fullmatch(r"(.*(?:qkv|linear1))\.(\d)", layer)
        name, number = (
            ("lora_unet_" + (match[1] if match else layer).replace(".", "_")),
            f".{match[2]}" if match else "",
        )
        tensors |= {f"{name}.lora_down{number}.weight": down, f"{name}.lora_up{number}.weight": up * len(down) / 2}
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    return tensors


def _halfway(name: str, wrapper: str) -> str:
    """`wrapper` put behind a block's number."""
    return re.sub(r"(blocks\.\d+)\.", rf"\1.{wrapper}.", name)


def _attention(adapter: Adapter) -> Adapter:
    return {layer: matrices for layer, matrices in adapter.items() if re.search(r"blocks\.\d+\.attn\.", layer)}


SCHEMES: Final[dict[str, Callable[[Adapter], Tensors]]] = {
    "diffusers, Replicate, SimpleTuner, ai-toolkit for FLUX.1": lambda a: write(a, "transformer."),
    "diffusers 0.30 with lora.down": lambda a: write(a, "transformer.", ("lora.down", "lora.up")),
    "diffusers with lora_linear_layer": lambda a: write(
        a, "transformer.", ("lora_linear_layer.down", "lora_linear_layer.up")
    ),
    "diffusers' attention processors": lambda a: write(
        renamed(_attention(a), PROCESSORS, strict=True), "transformer.", ("down", "up")
    ),
    "bare layers of diffusers": write,
    "PEFT": lambda a: write(a, "base_model.model."),
    "PEFT in memory": lambda a: write(a, "base_model.model.", suffix=".default.weight"),
    "PEFT, another adapter's name": lambda a: write(a, "transformer.", suffix=".my-style_2.weight"),
    "SimpleTuner of 2024": lambda a: write(a, "transformer.base_model.model."),
    "SimpleTuner for ComfyUI": lambda a: write(a, "diffusion_model.", alpha=8.0),
    "LyCORIS": lambda a: write(a, "lycoris_", KOHYA, flat=True, alpha=2.0),
    "kohya sd-scripts, fluxgym, musubi": lambda a: write(fused(a), "lora_unet_", KOHYA, flat=True, alpha=2.0),
    "kohya with split q, k, v": numbered,
    "kohya on a compiled model": lambda a: write(fused(a), "lora_unet__orig_mod_", KOHYA, flat=True, alpha=4.0),
    "a notebook's trailing underscore": lambda a: write(a, "lora_unet_", KOHYA, flat=True, alpha=4.0, tail="_"),
    "ComfyUI with kohya's words": lambda a: write(fused(a), "diffusion_model.", KOHYA, alpha=8.0),
    "ai-toolkit for FLUX.2": lambda a: write(fused(a), "diffusion_model."),
    "ai-toolkit's separators": lambda a: wrapped(
        write(a, "transformer.", KOHYA), lambda n: n.replace(".", "$$").replace("$$lora", ".lora").replace("$$w", ".w")
    ),
    "OneTrainer, legacy": lambda a: write(a, "lora_transformer_", KOHYA, flat=True, alpha=1.0),
    "OneTrainer, OMI": lambda a: write(in_parts(a), "transformer.", KOHYA, alpha=1.0),
    "OneTrainer, original": lambda a: write(fused(a), alpha=1.0),
    "OneTrainer, ComfyUI": lambda a: write(fused(a), "diffusion_model.", alpha=1.0),
    "Black Forest Labs": lambda a: write(fused(a)),
    "Black Forest Labs' checkpoint": lambda a: write(fused(a), "model.diffusion_model."),
    "fal for Kontext and FLUX.2": lambda a: write(fused(a), "base_model.model."),
    "XLabs": lambda a: write(renamed(fused(_attention(a)), XLABS, strict=True), "", ("down", "up")),
    "XLabs in ComfyUI": lambda a: write(
        renamed(fused(_attention(a)), XLABS, strict=True), "diffusion_model.", ("down", "up")
    ),
    "DiffSynth": lambda a: write(diffsynth(a), suffix=".default.weight") if _is_flux_1(a) else write(a, "pipe.dit."),
    "mflux": lambda a: write(renamed(a, MFLUX), "transformer."),
    "mflux without .weight": lambda a: write(renamed(a, MFLUX), "transformer.", suffix=""),
    "MLX": lambda a: {name: tensor.T for name, tensor in write(fused(a), "", ("lora_a", "lora_b"), suffix="").items()},
    "unet": lambda a: write(a, "unet."),
    "sformer_blocks": lambda a: wrapped(
        write(a, "diffusion_model."), lambda n: n.replace(".transformer_blocks.", ".sformer_blocks.")
    ),
    "torch.compile": lambda a: write(a, "transformer._orig_mod."),
    "torch.compile, block by block": lambda a: wrapped(write(a, "transformer."), lambda n: _halfway(n, "_orig_mod")),
    "data parallel": lambda a: write(a, "module."),
    "DeepSpeed around a compiled model": lambda a: write(a, "module._orig_mod.base_model.model."),
    "FSDP": lambda a: wrapped(
        write(a, "_fsdp_wrapped_module.base_model.model.", suffix=".default.weight"),
        lambda n: _halfway(n, "_fsdp_wrapped_module"),
    ),
    "checkpointed blocks": lambda a: wrapped(
        write(fused(a), "diffusion_model."), lambda n: _halfway(n, "_checkpoint_wrapped_module")
    ),
    "a wrapper that no table has": lambda a: write(a, "ema_model.net_g."),
    "a prefix that no table has": lambda a: write(fused(a), "locon_dev_", KOHYA, flat=True, alpha=2.0),
    "an adapter's name with blanks": lambda a: write(a, "base_model.model.", suffix=".my style (2).weight"),
    "PEFT's base layers": lambda a: write(a, "base_model.model.", tail=".base_layer"),
}


def _is_flux_1(adapter: Adapter) -> bool:
    return not any("linear_in" in layer or "to_qkv_mlp_proj" in layer for layer in adapter)
