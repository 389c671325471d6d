"""The FLUX models that the worker knows: classes, defaults and bounds, size, licence.

Facts only. Nothing is imported from diffusers or transformers here: classes stand as names, and parameter counts are
those of the real architectures built without weights (checked by a test). What to do with them on a given GPU is the
optimizer's matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.job import ModelLimits

ImageUse = Literal["start", "reference", "fill"]
MEGAPIXEL: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One component of a pipeline that has weights."""

    component: str  # its attribute on the pipeline, and its folder in the repository
    library: Literal["diffusers", "transformers"]
    class_name: str
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerShape:
    """What the work of one denoising step depends on.

    `token_weights` counts the weights that one token is multiplied by on its way through all blocks. It is less than
    the parameters: a double block has one set for image tokens and one for text tokens, and modulation is computed
    once a step.
    """

    width: int
    blocks: int
    token_weights: float


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
    image_use: ImageUse = "start"  # what a given image is: the first state (with `strength`), a reference, a canvas
    needs_image: bool = False
    is_modular: bool = False  # diffusers offers it as a ModularPipeline alone, without a callback at each step
    licence: str
    is_gated: bool  # needs HF_TOKEN of an account that accepted the licence
    transformer: Part
    text_encoders: tuple[Part, ...]
    vae: Part
    shape: TransformerShape

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.transformer, *self.text_encoders, self.vae)

    @property
    def is_commercial_use_allowed(self) -> bool:
        return self.licence in ("Apache-2.0", "MIT")

    @property
    def largest_text_encoder(self) -> Part:
        return max(self.text_encoders, key=lambda part: part.parameters)


FLUX_1_SHAPE: Final = TransformerShape(width=3072, blocks=57, token_weights=6.455e9)
FLUX_1_VAE: Final = Part(component="vae", library="diffusers", class_name="AutoencoderKL", parameters=83_819_683)
FLUX_2_VAE: Final = Part(component="vae", library="diffusers", class_name="AutoencoderKLFlux2", parameters=84_046_115)
CLIP_L: Final = Part(
    component="text_encoder", library="transformers", class_name="CLIPTextModel", parameters=123_060_480
)
T5_XXL: Final = Part(
    component="text_encoder_2", library="transformers", class_name="T5EncoderModel", parameters=4_762_310_656
)
DEV_LICENCE: Final = "FLUX.1-dev non-commercial"
KONTEXT_MAX_PIXELS: Final = 800 * 1328  # the largest of the sizes that Kontext was trained on


def _flux_1(parameters: int) -> Part:
    return Part(
        component="transformer", library="diffusers", class_name="FluxTransformer2DModel", parameters=parameters
    )


def _flux_2(parameters: int) -> Part:
    return Part(
        component="transformer", library="diffusers", class_name="Flux2Transformer2DModel", parameters=parameters
    )


def _language_model(class_name: str, parameters: int) -> tuple[Part, ...]:
    return (Part(component="text_encoder", library="transformers", class_name=class_name, parameters=parameters),)


CATALOG: Final[tuple[ModelSpec, ...]] = (
    ModelSpec(
        id="flux-tiny",
        name="flux-tiny",
        aliases=("tiny",),
        limits=ModelLimits(
            id="flux-tiny",
            num_inference_steps=16,
            num_inference_steps_bounds=(1, 50),
            guidance_scale=2.5,
            guidance_scale_bounds=(1.0, 4.0),
            max_sequence_length=32,
            max_sequence_length_limit=32,
            side=256,
            max_pixels=512 * 512,
        ),
        pipeline_class="FluxPipeline",
        image_to_image_class="FluxImg2ImgPipeline",
        inpaint_class="FluxInpaintPipeline",
        licence="MIT",
        is_gated=False,
        transformer=_flux_1(3_203_200),
        text_encoders=(
            Part(component="text_encoder", library="transformers", class_name="CLIPTextModel", parameters=150_272),
            Part(component="text_encoder_2", library="transformers", class_name="T5EncoderModel", parameters=250_400),
        ),
        vae=Part(component="vae", library="diffusers", class_name="AutoencoderKL", parameters=845_715),
        shape=TransformerShape(width=128, blocks=8, token_weights=1.573e6),
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-schnell",
        name="FLUX.1-schnell",
        aliases=("schnell", "flux-schnell"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.1-schnell",
            num_inference_steps=4,
            num_inference_steps_bounds=(1, 12),
            guidance_scale=None,
            max_sequence_length=256,
            max_sequence_length_limit=256,
            max_pixels=2 * MEGAPIXEL,
        ),
        pipeline_class="FluxPipeline",
        image_to_image_class="FluxImg2ImgPipeline",
        inpaint_class="FluxInpaintPipeline",
        licence="Apache-2.0",
        is_gated=True,
        transformer=_flux_1(11_891_178_560),
        text_encoders=(CLIP_L, T5_XXL),
        vae=FLUX_1_VAE,
        shape=FLUX_1_SHAPE,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-dev",
        name="FLUX.1-dev",
        aliases=("dev", "flux-dev"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.1-dev",
            num_inference_steps=28,
            num_inference_steps_bounds=(1, 50),
            guidance_scale=3.5,
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=2 * MEGAPIXEL,
        ),
        pipeline_class="FluxPipeline",
        image_to_image_class="FluxImg2ImgPipeline",
        inpaint_class="FluxInpaintPipeline",
        licence=DEV_LICENCE,
        is_gated=True,
        transformer=_flux_1(11_901_408_320),
        text_encoders=(CLIP_L, T5_XXL),
        vae=FLUX_1_VAE,
        shape=FLUX_1_SHAPE,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-Krea-dev",
        name="FLUX.1-Krea-dev",
        aliases=("krea-dev", "krea", "flux-krea-dev"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.1-Krea-dev",
            num_inference_steps=28,
            num_inference_steps_bounds=(1, 50),
            guidance_scale=4.5,
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=2 * MEGAPIXEL,
        ),
        pipeline_class="FluxPipeline",
        image_to_image_class="FluxImg2ImgPipeline",
        inpaint_class="FluxInpaintPipeline",
        licence=DEV_LICENCE,
        is_gated=True,
        transformer=_flux_1(11_901_408_320),
        text_encoders=(CLIP_L, T5_XXL),
        vae=FLUX_1_VAE,
        shape=FLUX_1_SHAPE,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-Kontext-dev",
        name="FLUX.1-Kontext-dev",
        aliases=("kontext-dev", "kontext", "flux-kontext-dev"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.1-Kontext-dev",
            num_inference_steps=28,
            num_inference_steps_bounds=(4, 50),
            guidance_scale=2.5,
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=KONTEXT_MAX_PIXELS,
        ),
        pipeline_class="FluxKontextPipeline",
        image_to_image_class="FluxKontextPipeline",
        inpaint_class="FluxKontextInpaintPipeline",
        image_use="reference",
        licence=DEV_LICENCE,
        is_gated=True,
        transformer=_flux_1(11_901_408_320),
        text_encoders=(CLIP_L, T5_XXL),
        vae=FLUX_1_VAE,
        shape=FLUX_1_SHAPE,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.1-Fill-dev",
        name="FLUX.1-Fill-dev",
        aliases=("fill-dev", "fill", "flux-fill-dev"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.1-Fill-dev",
            num_inference_steps=50,
            num_inference_steps_bounds=(1, 50),
            guidance_scale=30.0,
            guidance_scale_bounds=(0.0, 100.0),
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=2 * MEGAPIXEL,
        ),
        pipeline_class="FluxFillPipeline",
        image_to_image_class=None,
        inpaint_class="FluxFillPipeline",
        image_use="fill",
        needs_image=True,
        licence=DEV_LICENCE,
        is_gated=True,
        transformer=_flux_1(11_902_391_360),
        text_encoders=(CLIP_L, T5_XXL),
        vae=FLUX_1_VAE,
        shape=FLUX_1_SHAPE,
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-klein-4B",
        name="FLUX.2-klein-4B",
        aliases=("klein-4B", "klein", "flux-2-klein-4b"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.2-klein-4B",
            num_inference_steps=4,
            num_inference_steps_bounds=(1, 8),
            guidance_scale=1.0,
            guidance_scale_bounds=(1.0, 1.0),
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=4 * MEGAPIXEL,
        ),
        pipeline_class="Flux2KleinPipeline",
        image_to_image_class="Flux2KleinPipeline",
        inpaint_class="Flux2KleinInpaintPipeline",
        image_use="reference",
        licence="Apache-2.0",
        is_gated=False,
        transformer=_flux_2(3_875_544_576),
        text_encoders=_language_model("Qwen3ForCausalLM", 4_022_468_096),
        vae=FLUX_2_VAE,
        shape=TransformerShape(width=3072, blocks=25, token_weights=3.067e9),
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-klein-9B",
        name="FLUX.2-klein-9B",
        aliases=("klein-9B", "flux-2-klein-9b"),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.2-klein-9B",
            num_inference_steps=4,
            num_inference_steps_bounds=(1, 8),
            guidance_scale=1.0,
            guidance_scale_bounds=(1.0, 1.0),
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=4 * MEGAPIXEL,
        ),
        pipeline_class="Flux2KleinPipeline",
        image_to_image_class="Flux2KleinPipeline",
        inpaint_class="Flux2KleinInpaintPipeline",
        image_use="reference",
        licence="FLUX non-commercial",
        is_gated=True,
        transformer=_flux_2(9_078_581_248),
        text_encoders=_language_model("Qwen3ForCausalLM", 8_190_735_360),
        vae=FLUX_2_VAE,
        shape=TransformerShape(width=4096, blocks=32, token_weights=6.979e9),
    ),
    ModelSpec(
        id="black-forest-labs/FLUX.2-dev",
        name="FLUX.2-dev",
        aliases=("flux-2-dev",),
        limits=ModelLimits(
            id="black-forest-labs/FLUX.2-dev",
            num_inference_steps=28,
            num_inference_steps_bounds=(4, 50),
            guidance_scale=4.0,
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=4 * MEGAPIXEL,
        ),
        pipeline_class="Flux2Pipeline",
        image_to_image_class="Flux2Pipeline",
        inpaint_class=None,
        image_use="reference",
        licence="FLUX.2-dev non-commercial",
        is_gated=True,
        transformer=_flux_2(32_223_281_152),
        text_encoders=_language_model("Mistral3ForConditionalGeneration", 24_011_361_280),
        vae=FLUX_2_VAE,
        shape=TransformerShape(width=6144, blocks=56, token_weights=2.748e10),
    ),
    ModelSpec(
        id="black-forest-labs/flux-3-image-klein",
        name="FLUX.3-klein",
        aliases=("flux-3-klein", "flux-3-image-klein"),
        limits=ModelLimits(
            id="black-forest-labs/flux-3-image-klein",
            num_inference_steps=16,
            num_inference_steps_bounds=(1, 50),
            guidance_scale=None,
            max_sequence_length=512,
            max_sequence_length_limit=512,
            max_pixels=4 * MEGAPIXEL,
        ),
        pipeline_class="Flux3DistilledModularPipeline",
        image_to_image_class="Flux3DistilledModularPipeline",
        inpaint_class=None,
        image_use="reference",
        is_modular=True,
        licence="FLUX Kommunity",
        is_gated=True,
        transformer=Part(
            component="transformer",
            library="diffusers",
            class_name="Flux3Transformer2DModel",
            parameters=5_548_681_984,
        ),
        text_encoders=_language_model("Qwen3VLForConditionalGeneration", 4_437_815_808),
        vae=FLUX_2_VAE,
        shape=TransformerShape(width=3072, blocks=33, token_weights=4.049e9),
    ),
)


def find(name: str) -> ModelSpec | None:
    """The model of that catalogue name, short name or Hugging Face id, whatever its case."""
    return _BY_NAME.get(name.casefold())


_BY_NAME: Final = {name.casefold(): spec for spec in CATALOG for name in (spec.name, spec.id, *spec.aliases)}
