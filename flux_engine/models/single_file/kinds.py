"""What a file is that is no model of FLUX, by the names of its tensors.

`PACKED` are packed weights that cannot be read here, and adapters, which may have much of a transformer's layers;
`OTHERS` are asked about only where no FLUX transformer was found. The first that fits names the file, so that what is
more particular stands first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flux_engine.inputs.lora_kinds import PARTS

ARCHITECTURE: Final = "general.architecture"  # a note of GGUF files
MAX_NAMES: Final = 6_000  # that are looked at: a whole FLUX.1 with scales has 3,400


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A kind of file, how it is recognised, and what to name in its place. `{it} {what}; {instead}` is a sentence."""

    what: str
    instead: str
    pattern: str

    @property
    def text(self) -> str:
        return f"{self.what}; {self.instead}"


UNPACKED: Final = "name the file that it was made from, or one in fp8 or GGUF"
A_FLUX: Final = "this worker serves FLUX: name a model of it"
A_MODEL: Final = "name a file with a FLUX transformer"
ON_THE_VOLUME: Final = "the base model on the volume brings its own: name a file with a FLUX transformer"

PACKED: Final = (
    OtherFile(
        "is packed for Nunchaku (SVDQuant)",
        UNPACKED,
        r"\.(qweight|wscales|wtscale|wcscales|smooth_factor(_orig)?)$|\.(qkv_proj|mlp_fc[12])\.",
    ),
    OtherFile("is packed by bitsandbytes (NF4, FP4 or INT8)", UNPACKED, r"\.(absmax|quant_map|SCB)$|bitsandbytes__"),
    OtherFile("is packed as NVFP4 or MXFP8", UNPACKED, r"\.weight_scale_2$|\.weight_block_scale$"),
    OtherFile("is packed by GPTQ, AWQ or Quanto", UNPACKED, r"\.(qzeros|g_idx|weight\._data|weight_qtype)$"),
    OtherFile("is a LoRA", "put it into the folder `loras` and name it under `loras` of a job", PARTS.pattern),
    OtherFile(
        "is an IP-Adapter",
        "send reference pictures as `images` to a model that takes them",
        r"ip_adapter|image_proj(_model)?\.|ip_(hidden|image)",
    ),
    OtherFile(
        "is a ControlNet",
        "send `control` with its type and picture to a FLUX model",
        r"controlnet|control_model\.|input_hint_block|zero_conv|control_(blocks|layers)",
    ),
)
OTHERS: Final = (
    OtherFile("is Redux, which takes pictures", A_MODEL, r"^redux_(up|down)\."),
    OtherFile(
        "is a model of Stable Diffusion XL",
        A_FLUX,
        r"conditioner\.embedders|add_embedding\.linear|label_emb\.0\.0|down_blocks\.2\.attentions\.\d\.transformer_blocks\.[2-9]",
    ),
    OtherFile(
        "is a model of Stable Cascade",
        A_FLUX,
        r"clip_(txt_)?(pooled_)?mapper|effnet_mapper|down_blocks\.\d\.\d+\.channelwise",
    ),
    OtherFile(
        "is a model of Stable Diffusion 3", A_FLUX, r"joint_blocks|pos_embed\.proj\.|text_encoders\.clip_g\.transformer"
    ),
    OtherFile(
        "is a model of Stable Diffusion 1 or 2",
        A_FLUX,
        r"cond_stage_model\.|(input|output|middle)_blocks?\.\d|(down|up)_blocks\.\d\.(attentions\.\d\.(proj_in|norm)|resnets\.\d\.time_emb_proj)",
    ),
    OtherFile("is a model of Qwen-Image", A_FLUX, r"(img|txt)_mlp\.net|(img|txt)_mod\.1\b"),
    OtherFile(
        "is a model of HunyuanVideo",
        A_FLUX,
        r"individual_token_refiner|(img|txt)_attn_qkv|token_refiner|(img|txt)_mod\.linear",
    ),
    OtherFile("is a model of Mochi", A_FLUX, r"blocks\.\d+\.attn\.qkv_[xy]\b"),
    OtherFile(
        "is a model of Cosmos",
        A_FLUX,
        r"(?<!transformer_)blocks\.(block)?\d+\.(blocks\.\d|adaln_modulation|cross_attn\.q_proj)",
    ),
    OtherFile("is a model of Wan", A_FLUX, r"(?<!transformer_)blocks\.\d+\.(self_attn|cross_attn|ffn|attn[12])\."),
    OtherFile("is a model of HiDream", A_FLUX, r"(double|single)_stream_blocks"),
    OtherFile("is a model of Chroma", A_FLUX, r"distilled_guidance_layer"),
    OtherFile("is a model of AuraFlow", A_FLUX, r"joint_transformer_blocks|double_layers\.\d"),
    OtherFile("is a model of Z-Image or Lumina", A_FLUX, r"(context|noise)_refiner|cap_embedder"),
    OtherFile(
        "is a model of LTX-Video, PixArt or CogVideoX",
        A_FLUX,
        r"patchify_proj|adaln_single|caption_projection|transformer_blocks\.\d+\.attn[12]\.",
    ),
    OtherFile(
        "is a model of FLUX.3", "it is served from a diffusers folder: name that", r"(content_)?(txt_)?mode_blocks\."
    ),
    OtherFile(
        "is a picture encoder (CLIP or SigLIP vision)",
        ON_THE_VOLUME,
        r"(^|\.)vision_model\.|visual_projection|^visual\.",
    ),
    OtherFile("is a text encoder (T5)", ON_THE_VOLUME, r"(^|\.)encoder\.block\.\d+\.layer\.|^enc\.blk\.\d"),
    OtherFile(
        "is a text encoder (CLIP)", ON_THE_VOLUME, r"text_model\.|transformer\.resblocks|token_embedding\.weight$"
    ),
    OtherFile(
        "is a language model or a text encoder (Qwen, Mistral, Llama)",
        ON_THE_VOLUME,
        r"\blayers\.\d+\.(self_attn|mlp)\.|^blk\.\d+\.(attn|ffn)|^(model\.)?embed_tokens",
    ),
    OtherFile(
        "is an autoencoder (VAE)",
        ON_THE_VOLUME,
        r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|conv_out|mid|up|down|up_blocks|down_blocks|layers)\b",
    ),
    OtherFile(
        "is an upscaler", "use `upscale` of a job", r"^(params_ema\.)?(body|RRDB_trunk|model\.\d+|conv_first)\.?"
    ),
    OtherFile(
        "is an image classifier",
        "set CONTENT_FILTER to use it as a content filter",
        r"^(vit|vision_transformer)\.|^classifier\.(weight|bias)$",
    ),
    OtherFile(
        "is a textual inversion embedding",
        "FLUX here takes no embeddings: name a model",
        r"^(emb_params|string_to_param.*|<.*>|clip_[lg]|t5(xxl)?|qwen|mistral)$",
    ),
)
UNKNOWN: Final = OtherFile("holds no model that is known here", A_MODEL, "")


def packed_as(names: Iterable[str]) -> OtherFile | None:
    """What a file is whose tensors have these names, if it is packed or an adapter, whatever else it holds."""
    return _first(PACKED, list(names))


def other_file(names: Iterable[str], metadata: Mapping[str, str]) -> OtherFile:
    """What a file without a FLUX transformer is."""
    found = _first(OTHERS, list(names))
    if found is not None:
        return found
    architecture = metadata.get(ARCHITECTURE, "")
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", architecture):
        return OtherFile(f"is a GGUF file of another model ({architecture})", A_FLUX, "")
    return UNKNOWN


def _first(kinds: Iterable[OtherFile], names: list[str]) -> OtherFile | None:
    looked_at = names[:MAX_NAMES]
    return next((kind for kind in kinds if any(re.search(kind.pattern, name) for name in looked_at)), None)
