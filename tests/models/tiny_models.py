"""Small random versions of the catalogue's models, of their real pipeline, transformer, encoder and VAE classes."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers

from flux_engine.models.catalog import ModelSpec
from tests.models.tiny_flux import random_flux

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }} {% endfor %}{% endif %}{% endfor %}"
)
TEXT_CONFIG = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 30,  # FLUX.2 takes the states of layers up to this one
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
OUT_LAYERS = 3


def tiny_model(spec: ModelSpec) -> Any:
    """A pipeline of `spec`'s class that takes milliseconds."""
    torch.manual_seed(0)
    match spec.pipeline_class:
        case "FluxPipeline":
            return random_flux()
        case "FluxKontextPipeline":
            return diffusers.FluxKontextPipeline(**random_flux().components)
        case "FluxFillPipeline":
            parts = random_flux().components
            fields = {name: value for name, value in parts["transformer"].config.items() if not name.startswith("_")}
            parts["transformer"] = diffusers.FluxTransformer2DModel(
                **(fields | {"in_channels": 384, "out_channels": 64})
            )
            del parts["image_encoder"], parts["feature_extractor"]
            return diffusers.FluxFillPipeline(**parts)
        case "Flux2KleinPipeline":
            return diffusers.Flux2KleinPipeline(
                **_flux_2_parts(guidance=False), text_encoder=_qwen3(), tokenizer=_tokenizer(), is_distilled=True
            )
        case "Flux2Pipeline":
            return diffusers.Flux2Pipeline(
                **_flux_2_parts(guidance=True), text_encoder=_mistral_3(), tokenizer=_tokenizer()
            )
        case other:
            raise ValueError(other)


def call_arguments(spec: ModelSpec) -> dict[str, Any]:
    """What a call of one step needs beside the prompt."""
    arguments: dict[str, Any] = {
        "height": 32,
        "width": 32,
        "num_inference_steps": 1,
        "max_sequence_length": 16,
        "generator": torch.Generator("cpu").manual_seed(3),
        "output_type": "np",
    }
    if spec.limits.image_use == "canvas":
        arguments |= {"image": torch.zeros(1, 3, 32, 32), "mask_image": torch.ones(1, 1, 32, 32)}
    if spec.pipeline_class == "FluxKontextPipeline":
        arguments |= {"max_area": 32 * 32, "_auto_resize": False}
    return arguments


def _flux_2_parts(*, guidance: bool) -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": diffusers.AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            mid_block_add_attention=False,
        ),
        "transformer": diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=OUT_LAYERS * TEXT_CONFIG["hidden_size"],
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance,
        ),
    }


def _qwen3() -> Any:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**TEXT_CONFIG))


def _mistral_3() -> Any:
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    text = {"model_type": "mistral"} | TEXT_CONFIG
    return transformers.Mistral3ForConditionalGeneration(
        transformers.Mistral3Config(text_config=text, vision_config=vision)
    )


def _tokenizer() -> Any:
    """Bytes as tokens, with a chat template: any prompt has a spelling."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(["<pad>", "<eos>", *alphabet])}
    spelled = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    spelled.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=spelled, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
