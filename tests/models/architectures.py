"""The published architectures of the catalogue's models, to be built without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import transformers

Builder = Callable[[], Any]


def _flux_1(**changes: Any) -> Builder:
    return lambda: diffusers.FluxTransformer2DModel(**({"guidance_embeds": True} | changes))


def _flux_2(double: int, single: int, heads: int, text_width: int, *, guidance: bool) -> Builder:
    return lambda: diffusers.Flux2Transformer2DModel(
        num_layers=double,
        num_single_layers=single,
        num_attention_heads=heads,
        joint_attention_dim=text_width,
        guidance_embeds=guidance,
    )


def _clip_l() -> Any:
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            projection_dim=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
        )
    )


def _t5_xxl() -> Any:
    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            tie_word_embeddings=False,
        )
    )


def _qwen3(width: int, inner: int, *, is_tied: bool) -> Builder:
    return lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=151936,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            tie_word_embeddings=is_tied,
        )
    )


def _mistral_small_3() -> Any:
    text = {
        "model_type": "mistral",
        "vocab_size": 131072,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "head_dim": 64,
        "image_size": 1540,
        "patch_size": 14,
    }
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return transformers.Mistral3ForConditionalGeneration(config)


def _qwen3_vl_4b() -> Any:
    text = {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "depth": 24,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "deepstack_visual_indexes": [5, 11, 17],
        "num_position_embeddings": 2304,
        "patch_size": 16,
    }
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    return transformers.Qwen3VLForConditionalGeneration(config)


def _flux_1_vae() -> Any:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


_FLUX_1_REST: dict[str, Builder] = {"text_encoder": _clip_l, "text_encoder_2": _t5_xxl, "vae": _flux_1_vae}

# Model -> component -> builder.
ARCHITECTURES: dict[str, dict[str, Builder]] = {
    "FLUX.1-schnell": {"transformer": _flux_1(guidance_embeds=False), **_FLUX_1_REST},
    "FLUX.1-dev": {"transformer": _flux_1(), **_FLUX_1_REST},
    "FLUX.1-Fill-dev": {"transformer": _flux_1(in_channels=384, out_channels=64), **_FLUX_1_REST},
    "FLUX.2-klein-4B": {
        "transformer": _flux_2(5, 20, 24, 3 * 2560, guidance=False),
        "text_encoder": _qwen3(2560, 9728, is_tied=True),
        "vae": diffusers.AutoencoderKLFlux2,
    },
    "FLUX.2-klein-9B": {
        "transformer": _flux_2(8, 24, 32, 3 * 4096, guidance=False),
        "text_encoder": _qwen3(4096, 12288, is_tied=False),
        "vae": diffusers.AutoencoderKLFlux2,
    },
    "FLUX.2-dev": {
        "transformer": _flux_2(8, 48, 48, 3 * 5120, guidance=True),
        "text_encoder": _mistral_small_3,
        "vae": diffusers.AutoencoderKLFlux2,
    },
    "FLUX.3-klein": {
        "transformer": lambda: diffusers.Flux3Transformer2DModel(flow_map=True),
        "text_encoder": _qwen3_vl_4b,
        "vae": diffusers.AutoencoderKLFlux2,
    },
}
