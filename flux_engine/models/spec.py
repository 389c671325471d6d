"""What the worker has to know about a FLUX model to offer, load and plan it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flux_engine.job.limits import ModelLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One component of a pipeline that has weights."""

    component: str  # its attribute on the pipeline, and its folder in the repository
    library: Literal["diffusers", "transformers"]
    class_name: str
    parameters: int
    linear_parameters: int  # the weights of its Linear layers, which quantisation makes smaller
    largest_layer: int  # parameters of the layer that has most, mostly the vocabulary
    float32_parameters: int = 0  # kept in float32 where the rest is float16


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerShape:
    """What the work of one denoising step depends on.

    `token_weights` counts the weights that one token is multiplied by on its way through all blocks. It is less than
    the parameters: a double block has one set for image tokens and one for text tokens, and modulation is computed
    once a step. `linear_sides` is the sum of in- and outgoing features of its Linear layers: a LoRA of rank r on all of
    them has r times as many weights.
    """

    width: int
    blocks: int
    token_weights: float
    linear_sides: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model of the catalogue."""

    id: str  # Hugging Face id; the bundled model's is its name
    name: str
    aliases: tuple[str, ...] = ()
    limits: ModelLimits
    pipeline_class: str  # of diffusers, for a prompt alone
    image_to_image_class: str | None
    inpaint_class: str | None
    is_modular: bool = False  # diffusers offers it as a ModularPipeline alone, without a callback at each step
    licence: str
    is_float16_safe: bool = True  # its blocks clip what float16 cannot hold
    is_gated: bool  # needs HF_TOKEN of an account that accepted the licence
    transformer: Part
    text_encoders: tuple[Part, ...]
    vae: Part
    vae_channels: int = 128  # of the decoder at full size
    shape: TransformerShape
    # Width and height; at the second, sizes become symbols to the compiler, and no later one is compiled anew.
    warm_up_sizes: tuple[tuple[int, int], ...] = ((1024, 1024), (1360, 768))

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.transformer, *self.text_encoders, self.vae)

    @property
    def largest_text_encoder(self) -> Part:
        return max(self.text_encoders, key=lambda part: part.parameters)
