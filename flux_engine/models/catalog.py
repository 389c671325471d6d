"""The FLUX models that the worker knows: pipeline classes, defaults and bounds, sizes, licences.

Facts only, without diffusers and transformers: classes are names. A test compares the parameter counts with the real
architectures. The optimizer decides what to do with a model on a given GPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from flux_engine.job.limits import ModelLimits
from flux_engine.models.spec import Component, ModelSpec, TransformerShape

__all__ = ["CATALOG", "ModelSpec", "find"]

DEFAULT_ON_GPU: Final = "black-forest-labs/FLUX.1-schnell"
MEGAPIXEL: Final = 1024 * 1024

CLIP_L: Final = Component(
    name="text_encoder",
    parameters=123_060_480,
    linear_parameters=84_934_656,
    largest_layer=37_945_344,
)
T5_XXL: Final = Component(
    name="text_encoder_2",
    parameters=4_762_310_656,
    linear_parameters=4_630_511_616,
    largest_layer=131_596_288,
    float32_parameters=24 * 4096 * 10240,
)


def _component(name: str, parameters: int, *, linear: int, largest_layer: int) -> Component:
    return Component(name=name, parameters=parameters, linear_parameters=linear, largest_layer=largest_layer)


def _flux_2_shape(*, width: int, blocks: int, token_weights: float, linear_sides: int) -> TransformerShape:
    """One layer makes queries, keys, values and the gated MLP's input, nine channels wide to FLUX.1's seven; blocks lie
    in two lists."""
    return TransformerShape(
        width=width,
        blocks=blocks,
        token_weights=token_weights,
        linear_sides=linear_sides,
        block_values=23,
        block_lists=2,
    )


def _renamed(spec: ModelSpec, identity: str, *, aliases: tuple[str, ...]) -> ModelSpec:
    """`spec` under another id; the caller replaces what else differs."""
    return replace(
        spec,
        name=identity.rpartition("/")[2],
        aliases=aliases,
        limits=replace(spec.limits, id=identity),
    )


FLUX_1_DEV: Final = ModelSpec(
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
        takes_control=True,
    ),
    pipeline_class="FluxPipeline",
    image_to_image_class="FluxImg2ImgPipeline",
    inpaint_class="FluxInpaintPipeline",
    licence="FLUX.1-dev non-commercial",
    is_gated=True,
    transformer=_component("transformer", 11_901_408_320, linear=11_898_322_944, largest_layer=56_623_104),
    text_encoders=(CLIP_L, T5_XXL),
    vae=_component("vae", 83_819_683, linear=2_097_152, largest_layer=2_359_296),
    shape=TransformerShape(width=3072, blocks=57, token_weights=6.455e9, linear_sides=5_420_000),
)
_SCHNELL: Final = _renamed(FLUX_1_DEV, "black-forest-labs/FLUX.1-schnell", aliases=("schnell", "flux-schnell"))
FLUX_1_SCHNELL: Final = replace(
    _SCHNELL,
    limits=replace(
        _SCHNELL.limits,
        num_inference_steps=4,
        num_inference_steps_bounds=(1, 12),
        guidance_scale=None,
        max_sequence_length=256,
        max_sequence_length_limit=256,
    ),
    licence="Apache-2.0",
    transformer=_component("transformer", 11_891_178_560, linear=11_888_099_328, largest_layer=56_623_104),
)
_KREA: Final = _renamed(FLUX_1_DEV, "black-forest-labs/FLUX.1-Krea-dev", aliases=("krea-dev", "krea", "flux-krea-dev"))
FLUX_1_KREA_DEV: Final = replace(_KREA, limits=replace(_KREA.limits, guidance_scale=4.5))
_KONTEXT: Final = _renamed(
    FLUX_1_DEV, "black-forest-labs/FLUX.1-Kontext-dev", aliases=("kontext-dev", "kontext", "flux-kontext-dev")
)
FLUX_1_KONTEXT_DEV: Final = replace(
    _KONTEXT,
    limits=replace(
        _KONTEXT.limits,
        num_inference_steps_bounds=(4, 50),
        guidance_scale=2.5,
        max_pixels=800 * 1328,  # the largest size in its training
        image_use="reference",
        takes_control=False,
        max_references=1,
    ),
    pipeline_class="FluxKontextPipeline",
    image_to_image_class="FluxKontextPipeline",
    inpaint_class="FluxKontextInpaintPipeline",
)
_FILL: Final = _renamed(FLUX_1_DEV, "black-forest-labs/FLUX.1-Fill-dev", aliases=("fill-dev", "fill", "flux-fill-dev"))
FLUX_1_FILL_DEV: Final = replace(
    _FILL,
    limits=replace(
        _FILL.limits,
        num_inference_steps=50,
        guidance_scale=30.0,
        guidance_scale_bounds=(0.0, 100.0),
        takes_true_cfg=False,
        image_use="canvas",
        takes_control=False,
    ),
    pipeline_class="FluxFillPipeline",
    image_to_image_class=None,
    inpaint_class="FluxFillPipeline",
    transformer=_component("transformer", 11_902_391_360, linear=11_899_305_984, largest_layer=56_623_104),
)
FLUX_2_DEV: Final = ModelSpec(
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
        takes_true_cfg=False,
        image_use="reference",
        takes_mask=False,
        max_references=10,
        enhances_prompt=False,
    ),
    pipeline_class="Flux2Pipeline",
    image_to_image_class="Flux2Pipeline",
    inpaint_class=None,
    licence="FLUX.2-dev non-commercial",
    is_gated=True,
    transformer=_component("transformer", 32_223_281_152, linear=32_223_264_768, largest_layer=339_738_624),
    text_encoders=(_component("text_encoder", 24_011_361_280, linear=22_668_115_968, largest_layer=671_088_640),),
    vae=_component("vae", 84_046_115, linear=2_097_152, largest_layer=2_359_296),
    shape=_flux_2_shape(width=6144, blocks=56, token_weights=2.748e10, linear_sides=6_491_904),
)
_KLEIN_4B: Final = _renamed(
    FLUX_2_DEV, "black-forest-labs/FLUX.2-klein-4B", aliases=("klein-4B", "klein", "flux-2-klein-4b")
)
FLUX_2_KLEIN_4B: Final = replace(
    _KLEIN_4B,
    limits=replace(
        _KLEIN_4B.limits,
        num_inference_steps=4,
        num_inference_steps_bounds=(1, 8),
        guidance_scale=1.0,
        trained_guidance=(1.0, 1.0),
        takes_mask=True,
        max_references=4,
        enhances_prompt=None,
    ),
    pipeline_class="Flux2KleinPipeline",
    image_to_image_class="Flux2KleinPipeline",
    inpaint_class="Flux2KleinInpaintPipeline",
    licence="Apache-2.0",
    is_gated=False,
    transformer=_component("transformer", 3_875_544_576, linear=3_875_536_896, largest_layer=84_934_656),
    text_encoders=(_component("text_encoder", 4_022_468_096, linear=3_633_315_840, largest_layer=388_956_160),),
    shape=_flux_2_shape(width=3072, blocks=25, token_weights=3.067e9, linear_sides=1_596_416),
)
_KLEIN_9B: Final = _renamed(
    FLUX_2_KLEIN_4B, "black-forest-labs/FLUX.2-klein-9B", aliases=("klein-9B", "flux-2-klein-9b")
)
FLUX_2_KLEIN_9B: Final = replace(
    _KLEIN_9B,
    licence="FLUX non-commercial",
    is_gated=True,
    transformer=_component("transformer", 9_078_581_248, linear=9_078_571_008, largest_layer=150_994_944),
    text_encoders=(_component("text_encoder", 8_190_735_360, linear=6_945_767_424, largest_layer=622_329_856),),
    shape=_flux_2_shape(width=4096, blocks=32, token_weights=6.979e9, linear_sides=2_843_136),
)
FLUX_3_KLEIN: Final = ModelSpec(
    name="FLUX.3-klein",
    aliases=("flux-3-klein", "flux-3-image-klein"),
    limits=ModelLimits(
        id="black-forest-labs/flux-3-image-klein",
        num_inference_steps=16,
        num_inference_steps_bounds=(1, 50),
        guidance_scale=None,
        max_sequence_length=2048,  # an enhanced prompt has some 500, a layout more; short ones cost no more for it
        max_sequence_length_limit=8192,
        max_pixels=4 * MEGAPIXEL,
        takes_true_cfg=False,
        image_use="reference",
        takes_mask=False,
        max_references=10,
        enhances_prompt=True,  # its authors: not to be used without
        takes_boxes=True,
    ),
    pipeline_class="Flux3DistilledModularPipeline",
    image_to_image_class="Flux3DistilledModularPipeline",
    inpaint_class=None,
    is_modular=True,
    upsampler_id="black-forest-labs/flux-3-image-klein-pup",
    licence="FLUX Kommunity",
    is_float16_safe=False,
    is_gated=True,
    transformer=_component("transformer", 5_548_681_984, linear=5_548_670_976, largest_layer=62_914_560),
    text_encoders=(_component("text_encoder", 4_437_815_808, linear=4_044_357_632, largest_layer=388_956_160),),
    vae=FLUX_2_DEV.vae,
    shape=_flux_2_shape(width=3072, blocks=33, token_weights=4.049e9, linear_sides=2_644_864),
)
FLUX_TINY: Final = ModelSpec(
    name="flux-tiny",
    aliases=("tiny",),
    limits=ModelLimits(
        id="flux-tiny",
        num_inference_steps=16,
        num_inference_steps_bounds=(1, 50),
        guidance_scale=3.5,
        trained_guidance=(1.0, 4.0),
        max_sequence_length=32,
        max_sequence_length_limit=32,
        side=256,
        max_pixels=512 * 512,
        takes_control=True,
    ),
    pipeline_class="FluxPipeline",
    image_to_image_class="FluxImg2ImgPipeline",
    inpaint_class="FluxInpaintPipeline",
    licence="MIT",
    is_gated=False,
    transformer=_component("transformer", 3_203_200, linear=3_182_592, largest_layer=98_304),
    text_encoders=(
        replace(CLIP_L, parameters=150_272, linear_parameters=98_304, largest_layer=47_104),
        replace(T5_XXL, parameters=250_400, linear_parameters=221_184, largest_layer=28_608, float32_parameters=49_152),
    ),
    vae=_component("vae", 845_715, linear=0, largest_layer=36_864),
    vae_channels=16,
    shape=TransformerShape(width=128, blocks=8, token_weights=1.573e6, linear_sides=35_360),
    warm_up_sizes=((256, 256), (256, 160)),
)
_TINY_KONTEXT: Final = _renamed(FLUX_TINY, "flux-tiny-kontext", aliases=("tiny-kontext",))
FLUX_TINY_KONTEXT: Final = replace(
    _TINY_KONTEXT,
    limits=replace(
        _TINY_KONTEXT.limits,
        guidance_scale=1.0,
        trained_guidance=(1.0, 1.0),
        side=128,
        image_use="reference",
        takes_mask=False,
        takes_control=False,
        max_references=1,
    ),
    pipeline_class="FluxKontextPipeline",
    image_to_image_class="FluxKontextPipeline",
    inpaint_class=None,
    fits_references=True,
    warm_up_sizes=((128, 128), (192, 128)),
)

CATALOG: Final = (
    FLUX_TINY,
    FLUX_TINY_KONTEXT,
    FLUX_1_SCHNELL,
    FLUX_1_DEV,
    FLUX_1_KREA_DEV,
    FLUX_1_KONTEXT_DEV,
    FLUX_1_FILL_DEV,
    FLUX_2_KLEIN_4B,
    FLUX_2_KLEIN_9B,
    FLUX_2_DEV,
    FLUX_3_KLEIN,
)


def find(name: str) -> ModelSpec | None:
    """The model with that name, alias or Hugging Face id, in any case."""
    return _BY_NAME.get(name.casefold())


_BY_NAME: Final = {name.casefold(): spec for spec in CATALOG for name in (spec.name, spec.id, *spec.aliases)}
