"""How long a picture and a cold start take: arithmetic alone.

FLOP and bytes follow from the architecture. Rates and shares are fitted to published runs (`calibration.py`, and the
source beside each constant here); `anchors.py` holds the published runs, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flux_engine.models.planning.estimate import BYTES_OF_DTYPE, PIXELS_OF_TOKEN, vae_share
from flux_engine.models.planning.gpus import Speed
from flux_engine.models.planning.plan import DYNAMIC, FP8, PartPlan, Plan
from flux_engine.models.planning.way import Way
from flux_engine.models.spec import ModelSpec

# What decoding takes as if it ran at the eager rate: 96 ms at 1024x1024 on an H100 (docs/measuring-gpus.md).
VAE_FLOP_OF_PIXEL: Final = 3.6e7
TILE_OVERLAP: Final = 0.25  # of each side, diffusers' default
PICTURE_S: Final = 0.05  # schedule, tokens, launches and the copy of the picture: what is left of a klein picture
TEXT_SHARE: Final = 0.5  # of the eager share: a prompt is one short sequence
# A block's kernels take that long to launch, however fast the card: 157 ms a step for 57 blocks on a B200,
# TheStageAI/Elastic-FLUX.1-dev (4.4 s eager).
LAUNCH_S_OF_BLOCK: Final = 0.00270
WEIGHT_ONLY_SLOWDOWN: Final = 1.15  # weights are widened before each product
FLOAT32_SLOWDOWN: Final = 8  # float32 has no matrix units on the cards that have no bfloat16
# Reads and writes of a LoRA slot for each token and feature of a layer: its input again, its output, the sum. A rank-32
# branch around FLUX.1 takes a step on an RTX 4090 from 212 to 250 ms, nunchaku #66.
SLOT_TRAFFIC: Final = 0.82
# Work that is left under a step cache, first blocks included: ParaAttention's FLUX.1 with the first 8 of 57 blocks.
CACHED_WORK: Final[dict[float, float]] = {0.08: 0.69, 0.12: 0.58}
CACHE_REFERENCE_BLOCKS: Final = 57
FIRST_BLOCKS: Final = 8  # always computed, of each list of blocks that the cache wraps
# 31.2 and 35.4 s on an RTX 4090, Hugging Face's fast LoRA inference; an L20 took 33 s for 34 GB, so half as fast.
MODEL_OFFLOAD_BYTES_PER_S: Final = 2.0e9
SEQUENTIAL_BYTES_PER_S: Final = 2.1e9  # 312 s for 28 x 24 GB on an L20
GROUP_BYTES_PER_S: Final = 1.2e10  # 5 passes of FLUX.1 block by block in 9.75 s, diffusers #11106


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTime:
    """Seconds of one picture by stage, and what a job with LoRAs takes beyond."""

    text: float
    denoise: float
    decode: float
    moving: float  # parts in and out of the device, where nothing else runs meanwhile
    slot: float  # of the LoRA slot around compiled layers

    @property
    def total(self) -> float:
        return PICTURE_S + self.text + self.denoise + self.decode + self.moving


def step_flop(model: ModelSpec, *, pixels: int) -> tuple[float, float]:
    """FLOP of one denoising step: of the Linear layers (2 W S), and of attention (4 S^2 d L). `pixels` are those that
    the transformer sees: of the picture and of references."""
    tokens = pixels // PIXELS_OF_TOKEN + model.planned_text_tokens
    return 2 * model.shape.token_weights * tokens, 4 * tokens**2 * model.shape.width * model.shape.blocks


def picture_time(
    model: ModelSpec,
    speed: Speed,
    parts: tuple[PartPlan, ...],
    way: Way,
    *,
    steps: float,
    pixels: int,
    seen_pixels: int = 0,
) -> PictureTime:
    """The seconds of one picture of `pixels` that is made the given way, while the transformer sees `seen_pixels` of
    references beside it."""
    rate = _eager_rate(speed, way)
    step = step_seconds(model, speed, way, pixels=pixels + seen_pixels)
    step = max(step, parts[0].bytes / (speed.bandwidth_gb_s * 1e9))
    text = sum(2 * part.parameters * model.planned_text_tokens for part in model.text_encoders)
    text_s = text / (rate * TEXT_SHARE) * (WEIGHT_ONLY_SLOWDOWN if way.text != "none" else 1.0)
    moving = 0.0
    largest = max(parts[1:-1], key=lambda part: part.bytes)
    match way.offload:
        case "text":
            text_s = max(text_s, largest.bytes / GROUP_BYTES_PER_S)
        case "model":
            moving = sum(part.bytes for part in parts) / MODEL_OFFLOAD_BYTES_PER_S
        case "group":
            step = max(step, parts[0].bytes / GROUP_BYTES_PER_S)
            text_s = max(text_s, sum(part.bytes for part in parts[1:-1]) / GROUP_BYTES_PER_S)
        case "sequential":
            step += parts[0].bytes / SEQUENTIAL_BYTES_PER_S
            moving = sum(part.bytes for part in parts[1:]) / SEQUENTIAL_BYTES_PER_S
    return PictureTime(
        text=text_s,
        denoise=steps * cached_work(model, way.threshold) * step,
        decode=decode_flop(model, pixels=pixels, tile_side=way.tile_side) / rate,
        moving=moving,
        slot=steps * cached_work(model, way.threshold) * slot_seconds(model, speed, pixels=pixels + seen_pixels),
    )


def way_of(plan: Plan, model: ModelSpec, *, is_cached: bool = True) -> Way:
    """The way that `plan` runs; without its step cache for a job that it does not serve."""
    return Way(
        dtype=plan.dtype,
        transformer=plan.transformer_quantisation,
        text=plan.quantisation_of(model.largest_text_encoder.name),
        offload=plan.offload,
        tile_side=plan.vae_tile_side,
        is_compiled=plan.compile,
        threshold=plan.step_cache_threshold if is_cached else None,
    )


def step_seconds(model: ModelSpec, speed: Speed, way: Way, *, pixels: int) -> float:
    """The arithmetic of one computed step, without what moves."""
    linear, attention = step_flop(model, pixels=pixels)
    half, shares = speed.half_tflops * 1e12, speed.shares
    if way.dtype == "float32":
        half /= FLOAT32_SLOWDOWN
    if not way.is_compiled:
        slowdown = WEIGHT_ONLY_SLOWDOWN if way.transformer != "none" else 1.0
        return max((linear + attention) / (half * shares.eager) * slowdown, LAUNCH_S_OF_BLOCK * model.shape.blocks)
    if way.transformer in FP8 and speed.low_tflops is not None:
        return (linear / (speed.low_tflops * 1e12) + attention / half) / shares.low
    gain = shares.int8_gain if way.transformer in DYNAMIC else 1.0
    return (linear + attention) / (half * shares.compiled) / gain


def slot_seconds(model: ModelSpec, speed: Speed, *, pixels: int) -> float:
    """What the LoRA slot adds to a step: it moves bytes, its arithmetic is small."""
    tokens = pixels // PIXELS_OF_TOKEN + model.planned_text_tokens
    moved = SLOT_TRAFFIC * tokens * model.shape.linear_sides * BYTES_OF_DTYPE["bfloat16"]
    return moved / (speed.bandwidth_gb_s * 1e9)


def cached_work(model: ModelSpec, threshold: float | None) -> float:
    """The share of the denoising work that is left under a step cache. Of FLUX.2's two lists of blocks the first 8 of
    each always run, of FLUX.1's one list 8 of 57."""
    if threshold is None:
        return 1.0
    always = FIRST_BLOCKS / CACHE_REFERENCE_BLOCKS
    computed = (CACHED_WORK[threshold] - always) / (1 - always)
    first = min(1.0, model.shape.block_lists * FIRST_BLOCKS / model.shape.blocks)
    return computed + (1 - computed) * first


def decode_flop(model: ModelSpec, *, pixels: int, tile_side: int) -> float:
    """FLOP of decoding; tiles overlap, and so decode some pixels more than once."""
    side = round(pixels**0.5)
    if side > tile_side:
        side = sum(min(tile_side, side - start) for start in range(0, side, round(tile_side * (1 - TILE_OVERLAP))))
    return VAE_FLOP_OF_PIXEL * float((vae_share(model) * side) ** 2)


def _eager_rate(speed: Speed, way: Way) -> float:
    half = speed.half_tflops / (FLOAT32_SLOWDOWN if way.dtype == "float32" else 1)
    return half * 1e12 * speed.shares.eager
