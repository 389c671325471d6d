"""Small random versions of the catalogue's models, of their real pipeline, transformer, encoder and VAE classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers

from flux_engine.models.beside.upsampler import chat_processor
from flux_engine.models.catalog import ModelSpec
from flux_engine.models.modular import ChatTokenizer, ModularFlux
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
SEEING_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
OUT_LAYERS = 3
VISION_CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "depth": 1,
    "num_heads": 1,
    "out_hidden_size": 32,
    "deepstack_visual_indexes": [0],
    "num_position_embeddings": 16,
    "patch_size": 16,
}


def cases_of(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of a test, each with a model first. Small and random, models of a class differ by nothing but whether
    the pipeline enlarges references, so the second of a class is slow where the other values are the same."""
    seen, parameters = set(), []
    for spec, *others in cases:
        kind = (spec.pipeline_class, spec.fits_references, *others)
        name = "-".join((spec.name, *map(str, others)))
        parameters.append(pytest.param(spec, *others, id=name, marks=[pytest.mark.slow] if kind in seen else []))
        seen.add(kind)
    return parameters


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
        case "Flux3DistilledModularPipeline":
            return ModularFlux(spec.pipeline_class, flux_3_parts())
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


def flux_3_parts() -> dict[str, Any]:
    """The parts of FLUX.3, small and random; each transformer of it has the same weights."""
    torch.manual_seed(0)
    layers = 33  # FLUX.3 takes the states of layers up to the last but one
    text = TEXT_CONFIG | {
        "num_hidden_layers": layers,
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default"},
    }
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=VISION_CONFIG)
    return {
        "transformer": diffusers.Flux3Transformer2DModel(
            flow_map=True,
            in_channels=16,
            cond_in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=8 * TEXT_CONFIG["hidden_size"],
            axes_dims_rope=(4, 4, 4, 4),
        ),
        "vae": _flux_2_parts(guidance=False)["vae"],
        "text_encoder": transformers.Qwen3VLForConditionalGeneration(config),
        "tokenizer": ChatTokenizer(_tokenizer()),
    }


def tiny_upsampler() -> tuple[Any, Any]:
    """A random prompt upsampler of FLUX.3's classes, and its processor."""
    torch.manual_seed(1)
    text = {
        "vocab_size": 262,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "layer_types": ["linear_attention", "full_attention"],
    }
    tokenizer = _tokenizer()
    words = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": words})
    tokenizer.chat_template = SEEING_TEMPLATE
    ids = tokenizer.convert_tokens_to_ids(words)
    named = zip(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), ids, strict=True)
    vision = VISION_CONFIG | {"spatial_merge_size": 2}
    config = transformers.Qwen3_5Config(text_config=text, vision_config=vision, **dict(named))
    pictures = transformers.Qwen2VLImageProcessor(patch_size=16, merge_size=2)
    return transformers.Qwen3_5ForConditionalGeneration(config).eval(), chat_processor(pictures, tokenizer)


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
