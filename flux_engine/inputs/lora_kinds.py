"""What a safetensors file is, by the names of its tensors: a LoRA, or something that looks like one.

Only the names are read, so a file is judged as soon as it is downloaded, without torch. `KINDS` is the whole
knowledge: a pattern for one tensor's name, what the file is if a tensor has such a name, and what to ask for instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.errors import FluxError, LoraIncompatible, LoraInvalid

Verdict = Literal["no LoRA", "another adapter", "another model"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file that cannot be applied: how it is recognised, what it is and what to send in its place.

    A kind that is `alone` is meant only where the file holds no part of an adapter: with one, it is something besides.
    """

    what: str
    instead: str
    verdict: Verdict
    pattern: str = ""
    alone: bool = False

    def error(self) -> FluxError:
        """What the client is told."""
        error = LoraIncompatible if self.verdict == "another model" else LoraInvalid
        return error(f"the LoRA {self.what}; {self.instead}", field="loras")


A_LORA: Final = "have the trainer or a converter write a plain LoRA"
FLUX_LORA: Final = "this worker serves FLUX: send a LoRA that was trained on it"

KINDS: Final = (  # the first that fits names the file, so that what is more particular stands first
    Kind(
        "is packed for Nunchaku (SVDQuant)",
        "send the LoRA that it was converted from",
        "another adapter",
        r"\.(qweight|wscales|wtscale|wcscales|smooth(_orig|_factor)?|proj_down|proj_up)$"
        r"|\.(mlp_(context_)?fc[12]|qkv_proj(_context)?|out_proj_context)\.",
    ),
    Kind(
        "was made for Stable Diffusion 1.5, 2 or XL",
        FLUX_LORA,
        "another model",
        r"(down|up|input|output)_blocks?[._]\d|mid(dle)?_block|lora_prior_unet|lora_te2_.*(resblocks|encoder_layers)",
    ),
    Kind("was made for Stable Diffusion 3", FLUX_LORA, "another model", r"joint_blocks"),
    Kind("was made for Qwen-Image", FLUX_LORA, "another model", r"(img|txt)_mlp[._]net|(img|txt)_mod[._]1\b"),
    Kind(
        "was made for HunyuanVideo",
        FLUX_LORA,
        "another model",
        r"(img|txt)_mlp[._]fc[12]|individual_token_refiner|double_blocks\.\d+\.(img|txt)_attn_(qkv|proj)"
        r"|(img|txt)_mod[._]linear|blocks[._]\d+[._]modulation[._]linear",
    ),
    Kind(
        "was made for Wan",
        FLUX_LORA,
        "another model",
        r"(?<!transformer_)blocks[._]\d+[._](self_attn|cross_attn|ffn|attn[12])[._]",
    ),
    Kind("was made for HiDream", FLUX_LORA, "another model", r"(double|single)_stream_blocks"),
    Kind("was made for Chroma", FLUX_LORA, "another model", r"distilled_guidance_layer"),
    Kind("was made for AuraFlow", FLUX_LORA, "another model", r"joint_transformer_blocks|double_layers[._]\d"),
    Kind(
        "was made for Z-Image or Lumina",
        FLUX_LORA,
        "another model",
        r"(context|noise)_refiner|layers[._]\d+[._](attention|feed_forward)[._]",
    ),
    Kind(
        "was made for LTX-Video, CogVideoX or PixArt",
        FLUX_LORA,
        "another model",
        r"patchify_proj|adaln_single|caption_projection|transformer_blocks[._]\d+[._]attn[12][._]",
    ),
    Kind(
        "was made for a language model",
        FLUX_LORA,
        "another model",
        r"\blayers\.\d+\.(self_attn|mlp)\.\w+\.lora_",
    ),
    Kind(
        "is a control LoRA, which replaces layers and needs a control picture",
        "send `control` with its type and picture instead",
        "another model",
        r"(query|key)_norm\.scale$|norm_(added_)?[qk]\.(weight|lora)|\.(reshape|set)_weight$",
    ),
    Kind(
        "is an IP-Adapter",
        "send reference pictures as `images` to a model that takes them",
        "no LoRA",
        r"ip_adapter|image_proj(_model)?\.|ip_(hidden|image)",
    ),
    Kind("is Redux, which takes pictures", "send a LoRA", "no LoRA", r"^redux_(up|down)\."),
    Kind(
        "is a ControlNet",
        "send `control` with its type and picture instead",
        "no LoRA",
        r"controlnet|input_hint_block|zero_conv|control_(blocks|layers)",
    ),
    Kind("is a LoKr whose factors are in Tucker form", A_LORA, "another adapter", r"lokr_t2"),
    Kind("is a LoHa in Tucker form", A_LORA, "another adapter", r"hada_t[12]"),
    Kind("is a LoKr, whose Kronecker factors are no LoRA", A_LORA, "another adapter", r"\.lokr_"),
    Kind("is a LoHa, whose Hadamard factors are no LoRA", A_LORA, "another adapter", r"\.hada_"),
    Kind("is an OFT, which rotates weights", A_LORA, "another adapter", r"\.(b?oft_|oft_r)|boft"),
    Kind("is a GLoRA", A_LORA, "another adapter", r"\.(a|b)[12]\.weight$|glora"),
    Kind("is an (IA)3, which scales activations", A_LORA, "another adapter", r"\.on_input$|\.ia3_"),
    Kind("is a VeRA, whose matrices are random and not in the file", A_LORA, "another adapter", r"vera_lambda|\.vera_"),
    Kind("is an AdaLoRA, which has singular values besides", A_LORA, "another adapter", r"\.lora_E\b|\.ranknum"),
    Kind("has Tucker cores", A_LORA, "another adapter", r"\.lora_mid\b"),
    Kind(
        "is a textual inversion embedding",
        "send a LoRA: FLUX here takes no embeddings",
        "no LoRA",
        r"^(emb_params|string_to_param|<.*>|clip_[lg]|t5(xxl)?|qwen|mistral)$",
    ),
    Kind(
        "is an autoencoder (VAE)",
        "send a LoRA: models bring their own",
        "no LoRA",
        r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|conv_out|mid|up|down|up_blocks|down_blocks)\.",
        alone=True,
    ),
    Kind(
        "is an upscaler",
        "use `upscale`, or send a LoRA",
        "no LoRA",
        r"^(body|RRDB_trunk|model\.\d+)\.(\d+\.)?(rdb|RDB|sub|weight|bias|conv)",
        alone=True,
    ),
    Kind(
        "is a whole model",
        "serve it as a model (FLUX_MODEL), or extract a LoRA from it",
        "no LoRA",
        r"(double_blocks|single_blocks|transformer_blocks|mode_blocks)\..*\.(weight|scale)$",
        alone=True,
    ),
)
ONLY_TEXT: Final = Kind(
    "changes nothing but text encoders", "send one that was trained on the transformer", "another model"
)
TEXT_ENCODER: Final = Kind("is a text encoder", "send a LoRA: models bring their own", "no LoRA")
UNKNOWN: Final = Kind("holds no LoRA matrices", "send the file that the trainer wrote", "no LoRA")

WRAPPED: Final = r"^((base_model\.model|module|_orig_mod|_fsdp_wrapped_module|pipe|model|transformer)\.)*"
LEFT_OUT: Final = (  # parts that are not applied: a pattern for a tensor's name, and what the warning calls it
    (
        re.compile(
            WRAPPED
            + r"((lora|lycoris)_(prior_)?(te\d?|clip|t5(xxl)?|text_encoders?\d?|text_model|llm|(qwen|mistral)\d*)_"
            r"|text_encoders?_?\d?[._]|text_model[._]|text_projection|te[123]?\.|clip(_[lgh])?\.|t5(xxl|_encoder)?\."
            r"|(qwen|mistral)\w*\.|cond_stage_model\.|conditioner\.|encoder\.block\.\d+\.layer\.)"
        ),
        "part for the text encoder",
    ),
    (re.compile(r"^bundle_emb\."), "embedding for a word of its own"),
    (re.compile(r"^_aux\."), "bookkeeping of its trainer"),
)
PARTS: Final = re.compile(  # a file without one of these words holds no adapter
    r"lora|lokr|hada|dora|oft_|glora|on_input|\.diff(_b)?$|\.(down|up)\.weight$|vera_|ia3_|\.magnitude$"
)


def left_out(name: str) -> str | None:
    """What a tensor of this name belongs to, if to a part that is not applied."""
    return next((what for pattern, what in LEFT_OUT if pattern.match(name)), None)


def other_kind(names: Iterable[str]) -> Kind | None:
    """The kind of a file whose tensors have these names; None for a LoRA, as far as names tell."""
    listed = list(names)
    has_parts = any(PARTS.search(name) for name in listed)
    told = [name for name in listed if left_out(name) is None]
    if not told:
        return ONLY_TEXT if has_parts else TEXT_ENCODER
    for kind in KINDS:
        if not (kind.alone and has_parts) and any(re.search(kind.pattern, name) for name in told):
            return kind
    return None if has_parts else UNKNOWN
