"""State dicts of diffusers' and transformers' classes in the layouts of single files, written by hand the other way
round: fused, swapped and renamed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

State = dict[str, Tensor]

OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    **{
        f"{embed}.{ours}.linear_{number}": f"{theirs}.{layer}"
        for embed in ("time_text_embed", "time_guidance_embed")
        for ours, theirs in (
            ("timestep_embedder", "time_in"),
            ("guidance_embedder", "guidance_in"),
            ("text_embedder", "vector_in"),
        )
        for number, layer in ((1, "in_layer"), (2, "out_layer"))
    },
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
}
DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
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
}
SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
    "attn.to_out": "linear2",
    "attn.to_qkv_mlp_proj": "linear1",
}
FUSED: dict[str, dict[str, tuple[str, ...]]] = {  # by prefix of diffusers: the fused layer, and the layers in it
    "transformer_blocks": {
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    },
    "single_transformer_blocks": {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")},
}
BLOCK = re.compile(r"((?:single_)?transformer_blocks)\.(\d+)\.(.+)\.(weight|bias)")


def component(folder: Path, name: str) -> State:
    """The tensors of a component of a diffusers folder."""
    return {
        key: tensor for path in sorted((folder / name).glob("*.safetensors")) for key, tensor in load_file(path).items()
    }


def to_bfl(state: Mapping[str, Tensor]) -> State:
    """A transformer's state dict in Black Forest Labs' layout."""
    found: State = {}
    for name, tensor in state.items():
        if (match := BLOCK.fullmatch(name)) is None:
            layer, _, end = name.rpartition(".")
            found[f"{OUTSIDE[layer]}.{end}"] = swapped(tensor) if layer == "norm_out.linear" else tensor
            continue
        blocks, number, inner, end = match.groups()
        theirs = f"{'double' if blocks == 'transformer_blocks' else 'single'}_blocks.{number}"
        fused = next((item for item in FUSED[blocks].items() if inner in item[1]), None)
        if fused is not None:
            pieces = [state[f"{blocks}.{number}.{piece}.{end}"] for piece in fused[1]]
            found[f"{theirs}.{fused[0]}.{end}"] = torch.cat(pieces)
        else:
            layer = (DOUBLE if blocks == "transformer_blocks" else SINGLE)[inner]
            found[f"{theirs}.{layer}.{'scale' if layer.endswith('_norm') else end}"] = tensor
    return found


def swapped(tensor: Tensor) -> Tensor:
    scale, shift = tensor.chunk(2)
    return torch.cat([shift, scale])


def to_ldm(state: Mapping[str, Tensor]) -> State:
    """An autoencoder's state dict in latent diffusion's layout."""
    last = max(int(name.split(".")[2]) for name in state if name.startswith("decoder.up_blocks."))
    found: State = {}
    for name, tensor in state.items():
        new = re.sub(r"^quant_conv\.", "encoder.quant_conv.", name)
        new = re.sub(r"^post_quant_conv\.", "decoder.post_quant_conv.", new)
        new = re.sub(r"up_blocks\.(\d+)\.", lambda match: f"up.{last - int(match[1])}.", new)
        new = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", new)
        new = new.replace("resnets.", "block.").replace("upsamplers.0.", "upsample.")
        new = new.replace("downsamplers.0.", "downsample.").replace("conv_norm_out", "norm_out")
        new = new.replace("conv_shortcut", "nin_shortcut").replace(
            "mid_block.attentions.0.group_norm", "mid.attn_1.norm"
        )
        new = re.sub(r"mid_block\.attentions\.0\.to_([qkv])\.", r"mid.attn_1.\1.", new)
        new = new.replace("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out.")
        is_convolution = ".attn_1." in new and tensor.ndim == 2
        found[new] = tensor[:, :, None, None] if is_convolution else tensor
    return found


def all_in_one(folder: Path, *, encoder: str = "t5xxl") -> State:
    """A pipeline's folder as ComfyUI's checkpoint: transformer, text encoders and autoencoder under its prefixes."""
    found = {
        f"model.diffusion_model.{name}": tensor for name, tensor in to_bfl(component(folder, "transformer")).items()
    }
    found |= {f"vae.{name}": tensor for name, tensor in to_ldm(component(folder, "vae")).items()}
    has_two = (folder / "text_encoder_2").is_dir()
    if has_two:
        for name, tensor in component(folder, "text_encoder").items():
            found[f"text_encoders.clip_l.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
        found["text_encoders.clip_l.logit_scale"] = torch.tensor(4.6)
    large = component(folder, "text_encoder_2" if has_two else "text_encoder")
    return found | {f"text_encoders.{encoder}.transformer.{name}": tensor for name, tensor in large.items()}


def save(path: Path, state: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, metadata=metadata)
    return path


def rounded_to_fp8(state: Mapping[str, Tensor], *, word: str = "scale_weight") -> tuple[State, State]:
    """Matrices in fp8 with a scale beside each, as ComfyUI writes them; and what they are widened."""
    stored: State = {}
    widened: State = {}
    for name, tensor in state.items():
        if tensor.ndim != 2 or not name.endswith(".weight"):
            stored[name] = widened[name] = tensor
            continue
        scale = tensor.float().abs().max() / 448
        stored[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
        stored[f"{name.removesuffix('.weight')}.{word}"] = scale
        widened[name] = stored[name].float() * scale
    return stored, widened


def with_transformer(folder: Path, state: Mapping[str, Tensor], target: Path) -> Path:
    """A copy of the diffusers folder with another transformer."""
    shutil.copytree(folder, target)
    for path in (target / "transformer").glob("*.safetensors*"):
        path.unlink()
    save(target / "transformer" / "diffusion_pytorch_model.safetensors", state, metadata={"format": "pt"})
    return target


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "transformer" / "config.json").read_text())
    return found
