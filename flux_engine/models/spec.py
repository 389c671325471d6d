"""What the worker needs to know about a FLUX model to offer, load and plan it."""

from __future__ import annotations

from dataclasses import dataclass

from flux_engine.job.limits import ModelLimits

USUAL_TEXT_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One component of a pipeline that has weights."""

    name: str  # its attribute on the pipeline, and its folder in the repository
    parameters: int
    linear_parameters: int  # the weights of its Linear layers, which quantisation shrinks
    largest_layer: int  # parameters of its largest layer, mostly the vocabulary
    float32_parameters: int = 0  # kept in float32 where the rest is float16


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerShape:
    """The figures that determine the work of one denoising step.

    `token_weights` counts the weights that multiply one token on its way through all blocks. It is less than the
    parameters: a double block has one set for image tokens and one for text tokens, and modulation runs once a step.
    `linear_sides` is the sum of input and output features of all Linear layers: a LoRA of rank r on all of them has r
    times as many weights. `block_values` counts the values that a block keeps for each token and channel at its widest
    point. `block_lists` are wrapped one by one by a step cache.
    """

    width: int
    blocks: int
    token_weights: float
    linear_sides: int
    block_values: int = 18  # 17.6 measured on an H100 at 2048x2048, docs/measuring-gpus.md
    block_lists: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model of the catalogue."""

    name: str
    aliases: tuple[str, ...] = ()
    limits: ModelLimits
    pipeline_class: str  # the diffusers class for a prompt alone
    image_to_image_class: str | None
    inpaint_class: str | None
    fits_references: bool = False  # it sees a reference cut to the size of the picture it makes
    is_modular: bool = False  # diffusers has it as a ModularPipeline only: see modular.py
    upsampler_id: str | None = None  # Hugging Face id of its prompt upsampler, where that has weights of its own
    licence: str
    is_float16_safe: bool = True  # its blocks clip values that float16 cannot hold
    is_single_file: bool = False  # its transformer comes from one file, beside a base model's folder
    is_gated: bool  # needs HF_TOKEN of an account that accepted the licence
    transformer: Component
    text_encoders: tuple[Component, ...]
    vae: Component
    vae_channels: int = 128  # channels of the decoder at full size
    shape: TransformerShape
    # Width and height. The second size makes shapes dynamic, so later sizes do not recompile.
    warm_up_sizes: tuple[tuple[int, int], ...] = ((1024, 1024), (1360, 768))

    @property
    def id(self) -> str:
        """Its Hugging Face id; the bundled model's is its name."""
        return self.limits.id

    @property
    def asks_for_filter(self) -> bool:
        """Whether its licence asks those who serve it for a content filter, or for a review of what is made."""
        return "non-commercial" in self.licence or "Kommunity" in self.licence

    @property
    def makes_videos(self) -> bool:
        """Whether its pipeline takes noise and text embeddings from outside, as FLUX.1's text-to-image does."""
        return self.pipeline_class == "FluxPipeline"

    @property
    def planned_text_tokens(self) -> int:
        """Text tokens that plans reckon with: what it reads at most, but rarely does, would double the text."""
        return min(self.limits.max_sequence_length, USUAL_TEXT_TOKENS)

    @property
    def components(self) -> tuple[Component, ...]:
        return (self.transformer, *self.text_encoders, self.vae)

    @property
    def largest_text_encoder(self) -> Component:
        return max(self.text_encoders, key=lambda encoder: encoder.parameters)

    @property
    def parameters(self) -> int:
        return sum(component.parameters for component in self.components)
