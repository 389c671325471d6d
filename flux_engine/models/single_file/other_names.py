"""Text encoders and an autoencoder beside a transformer: which tensor of a file makes which of theirs.

Text encoders stand under the names that ComfyUI gives them, an autoencoder in latent diffusion's layout.
"""

from __future__ import annotations

import re
from typing import Final

from flux_engine.models.single_file.names import NO_WEIGHTS, Family, Origin, Part, Tensors

VAE_PREFIXES: Final = ("vae.", "first_stage_model.")
ENCODER_PREFIX: Final = re.compile(r"text_encoders\.([A-Za-z0-9_]+)\.(transformer\.)?")
CLIP: Final = ("clip_l", "clip")  # ComfyUI's names; any other encoder is the family's large one
VAE_WORDS: Final = (
    (re.compile(r"^encoder\.quant_conv\."), "quant_conv."),
    (re.compile(r"^decoder\.post_quant_conv\."), "post_quant_conv."),
    (re.compile(r"^(encoder|decoder)\.norm_out\."), r"\1.conv_norm_out."),
    (re.compile(r"^(encoder|decoder)\.mid\.block_1\."), r"\1.mid_block.resnets.0."),
    (re.compile(r"^(encoder|decoder)\.mid\.block_2\."), r"\1.mid_block.resnets.1."),
    (re.compile(r"^(encoder|decoder)\.mid\.attn_1\.norm\."), r"\1.mid_block.attentions.0.group_norm."),
    (re.compile(r"^(encoder|decoder)\.mid\.attn_1\.([qkv])\."), r"\1.mid_block.attentions.0.to_\2."),
    (re.compile(r"^(encoder|decoder)\.mid\.attn_1\.proj_out\."), r"\1.mid_block.attentions.0.to_out.0."),
    (re.compile(r"^encoder\.down\.(\d+)\.block\."), r"encoder.down_blocks.\1.resnets."),
    (re.compile(r"^encoder\.down\.(\d+)\.downsample\."), r"encoder.down_blocks.\1.downsamplers.0."),
    (re.compile(r"\.nin_shortcut\."), ".conv_shortcut."),
)
UP_BLOCK: Final = re.compile(r"^decoder\.up\.(\d+)\.(block|upsample)\.")


def find_encoders(tensors: Tensors, family: Family) -> dict[str, Part]:
    """The text encoders among `tensors`, by the names of their components."""
    parts: dict[str, dict[str, Origin]] = {}
    for name in tensors:
        match = ENCODER_PREFIX.match(name)
        if match is None or NO_WEIGHTS.search(name):
            continue
        is_clip = match[1] in CLIP
        component = "text_encoder" if is_clip or family == "FLUX.2" else "text_encoder_2"
        inner = name[match.end() :]
        parts.setdefault(component, {})[inner.removeprefix("text_model.") if is_clip else inner] = Origin(name)
    return dict(parts)


def find_vae(tensors: Tensors) -> Part:
    """The autoencoder among `tensors`; empty where there is none."""
    for prefix in VAE_PREFIXES:
        inner = {name[len(prefix) :]: name for name in tensors if name.startswith(prefix)}
        if inner:
            num_blocks = len({name.split(".")[2] for name in inner if name.startswith("decoder.up.")})
            return {
                ours: Origin(theirs, is_flattened=".attentions." in ours and len(tensors[theirs].shape) == 4)
                for name, theirs in inner.items()
                for ours in [_vae_name(name, num_blocks)]
            }
    return {}


def _vae_name(name: str, num_blocks: int) -> str:
    """diffusers' name; its up blocks are counted from the other end."""
    match = UP_BLOCK.match(name)
    if match is not None:
        inner = "resnets." if match[2] == "block" else "upsamplers.0."
        name = f"decoder.up_blocks.{num_blocks - 1 - int(match[1])}.{inner}{name[match.end() :]}"
    for pattern, ours in VAE_WORDS:
        name = pattern.sub(ours, name)
    return name
