"""A small random FLUX.1 pipeline of the real classes, with the bundled model's tokenizers and encoders."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTokenizer, T5Tokenizer

from builder.flux_tiny.autoencoder import new_autoencoder
from builder.flux_tiny.text import new_clip_encoder, new_t5_encoder
from flux_engine.models.weights import BUNDLED_FOLDER

Pixels = npt.NDArray[np.float32]


def random_flux(dtype: torch.dtype = torch.float32) -> FluxPipeline:
    torch.manual_seed(0)
    clip_tokenizer, t5_tokenizer = bundled_tokenizers()
    vae = new_autoencoder()
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.5)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=new_clip_encoder(clip_tokenizer),
        tokenizer=clip_tokenizer,
        text_encoder_2=new_t5_encoder(t5_tokenizer),
        tokenizer_2=t5_tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=96,
            pooled_projection_dim=64,
            guidance_embeds=True,
            axes_dims_rope=(4, 14, 14),
        ),
    )
    pipeline.to(dtype)
    return pipeline


@cache
def bundled_tokenizers() -> tuple[CLIPTokenizer, T5Tokenizer]:
    clip = CLIPTokenizer.from_pretrained(BUNDLED_FOLDER, subfolder="tokenizer")
    return clip, T5Tokenizer.from_pretrained(BUNDLED_FOLDER, subfolder="tokenizer_2")


def save_random_flux(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    random_flux(dtype).save_pretrained(folder)
    return folder


def paint(
    pipeline: Any, prompt: str = "a red sun", *, side: int = 64, steps: int = 2, width: int | None = None
) -> Pixels:
    """One picture (H, W, 3) in 0 to 1, always of the same seed."""
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        prompt=prompt,
        height=side,
        width=width or side,
        num_inference_steps=steps,
        guidance_scale=2.5,
        max_sequence_length=32,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    )
    picture: Pixels = result.images[0]
    return picture


def psnr(one: Pixels, other: Pixels) -> float:
    """Peak signal to noise of two pictures in dB; infinite where they are equal."""
    error = float(np.mean(np.square(one.astype(np.float64) - other.astype(np.float64))))
    return float("inf") if error == 0 else -10 * float(np.log10(error))
