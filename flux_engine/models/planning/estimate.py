"""Bytes and seconds of a model that runs in a given way: arithmetic alone.

What these figures rest on: parameter counts are exact; activations and shares of the peak rate are fitted to
published measurements and stay estimates until `make test-gpu` has run on the card.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from flux_engine.models.planning.gpus import GpuProperties, Speed
from flux_engine.models.planning.plan import DYNAMIC, SLOT_RANK, DType, PartPlan
from flux_engine.models.spec import Component, ModelSpec
from flux_engine.settings import Offload, Quantisation
from flux_engine.units import GIB

BYTES_OF_DTYPE: Final[dict[DType, int]] = {"bfloat16": 2, "float16": 2, "float32": 4}
# One scale a row, which is not counted.
BYTES_OF_WEIGHT: Final[dict[Quantisation, float]] = {
    "int8_weight_only": 1.0,
    "int8_dynamic": 1.0,
    "fp8_dynamic": 1.0,
}
PIXELS_OF_TOKEN: Final = 256
ACTIVATIONS_OF_BLOCK: Final = 40  # values kept for each token and channel at the widest point of a block
# Of FLUX's decoder, of 128 channels at full size: 2.4 GiB for 1024x1024 in 16 bits on a GPU, where convolutions take
# room to work in, and what `python -m benchmarks.plan_memory` measures on a CPU, where they do not.
VAE_VALUES_OF_PIXEL: Final = 1230
VAE_VALUES_OF_PIXEL_ON_CPU: Final = 920
VAE_CHANNELS: Final = 128
VAE_FLOP_OF_PIXEL: Final = 1e7
PINNED_SHARE: Final = 1.6  # torch rounds each pinned piece up to a power of two: 34.4 GiB for 22.0 of FLUX.1's blocks
GROUPS_IN_FLIGHT: Final = 3  # the block that runs, the next one on its way, the last one not yet freed
# Published for an L20: a model offload adds 33 s for 34 GB moved, a sequential one 312 s for 28 x 24 GB.
MODEL_OFFLOAD_BYTES_PER_S: Final = 1.0e9
SEQUENTIAL_BYTES_PER_S: Final = 2.1e9
GROUP_BYTES_PER_S: Final = 2.0e10  # pinned, over PCIe 4 x16, beside the arithmetic
# Published for FLUX.1-dev on an H100 and an A100: 32 to 49 % of the peak eagerly, 44 to 67 % compiled.
EAGER_SHARE: Final = 0.40
COMPILED_SHARE: Final = 0.55
CACHED_STEPS_SHARE: Final = 0.6  # of the steps are computed under a step cache of the usual threshold
FLOAT32_SLOWDOWN: Final = 8  # float32 has no matrix units on the cards that have no bfloat16
WEIGHT_ONLY_SLOWDOWN: Final = 1.15  # weights are widened before each product


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run a model: a rung of the ladder."""

    transformer: Quantisation
    text: Quantisation
    offload: Offload
    tile_side: int


def part_plans(model: ModelSpec, way: Way, dtype: DType) -> tuple[PartPlan, ...]:
    """Each part with its quantisation and its bytes. The VAE and small text encoders stay as they are."""
    largest = model.largest_text_encoder
    schemes: dict[str, Quantisation] = {"transformer": way.transformer, largest.name: way.text}
    return tuple(
        PartPlan(
            component=component.name,
            quantisation=schemes.get(component.name, "none"),
            bytes=part_bytes(component, schemes.get(component.name, "none"), dtype),
        )
        for component in model.components
    )


def part_bytes(part: Component, quantisation: Quantisation, dtype: DType) -> int:
    """Bytes of a part's weights."""
    wide = BYTES_OF_DTYPE[dtype]
    if quantisation != "none":
        rest = part.parameters - part.linear_parameters
        return int(part.linear_parameters * BYTES_OF_WEIGHT[quantisation] + rest * wide)
    in_float32 = part.float32_parameters if dtype == "float16" else 0
    return part.parameters * wide + in_float32 * (4 - wide)


def activation_bytes(
    model: ModelSpec, dtype: DType, *, pixels: int, tile_side: int, batch: int = 1, is_cpu: bool = False
) -> int:
    """Bytes beside the weights: of the transformer's widest block or of the decoder, which never run together."""
    wide = BYTES_OF_DTYPE[dtype]
    tokens = pixels // PIXELS_OF_TOKEN + model.limits.max_sequence_length
    blocks = batch * tokens * model.shape.width * ACTIVATIONS_OF_BLOCK * wide
    values = (VAE_VALUES_OF_PIXEL_ON_CPU if is_cpu else VAE_VALUES_OF_PIXEL) * vae_share(model)
    decoder = min(pixels, tile_side**2) * values * wide + pixels * batch * 3 * 4
    return int(max(blocks, decoder))


def vae_share(model: ModelSpec) -> float:
    """How wide the decoder is at full size, where it spends its memory and time, against FLUX's."""
    return model.vae_channels / VAE_CHANNELS


def resident_bytes(model: ModelSpec, parts: tuple[PartPlan, ...], way: Way, *, gpu_count: int) -> int:
    """Bytes of weights that stand on the device (with `balanced`: on the fullest one) at the same time."""
    sizes = [part.bytes for part in parts]
    layer = max(component.largest_layer for component in model.components) * 2
    match way.offload:
        case "none":
            return sum(sizes)
        case "balanced":
            return max(*sizes, -(-sum(sizes) // max(gpu_count, 1)))
        case "model":
            return max(sizes)
        case "group":
            return max(GROUPS_IN_FLIGHT * parts[0].bytes // model.shape.blocks, 2 * layer) + parts[-1].bytes
        case "sequential":
            return 2 * layer


def slot_bytes(model: ModelSpec, dtype: DType) -> int:
    """Bytes of the LoRA slot, which is never quantised."""
    return SLOT_RANK * model.shape.linear_sides * BYTES_OF_DTYPE[dtype]


def host_bytes(parts: tuple[PartPlan, ...], offload: Offload) -> int:
    """Bytes of the host's memory that hold weights while the model runs."""
    if offload not in ("model", "group", "sequential"):
        return 2 * GIB
    weights = sum(part.bytes for part in parts)
    return int(weights * PINNED_SHARE) if offload == "group" else weights


def step_flop(model: ModelSpec, *, pixels: int) -> tuple[float, float]:
    """FLOP of one denoising step: of the Linear layers (2 W S), and of attention (4 S^2 d L)."""
    tokens = pixels // PIXELS_OF_TOKEN + model.limits.max_sequence_length
    return 2 * model.shape.token_weights * tokens, 4 * tokens**2 * model.shape.width * model.shape.blocks


def image_seconds(
    model: ModelSpec,
    gpu: GpuProperties,
    parts: tuple[PartPlan, ...],
    way: Way,
    *,
    dtype: DType,
    is_compiled: bool,
    steps: float,
    has_step_cache: bool,
) -> float | None:
    """Seconds of one image at the model's own size; None where the card's rates are not known."""
    if gpu.speed is None:
        return None
    pixels = model.limits.side**2
    speed = (
        gpu.speed if dtype != "float32" else replace(gpu.speed, half_tflops=gpu.speed.half_tflops / FLOAT32_SLOWDOWN)
    )
    step = _step_seconds(model, speed, way.transformer, pixels=pixels, is_compiled=is_compiled)
    step = max(step, parts[0].bytes / (gpu.speed.bandwidth_gb_s * 1e9))
    computed = steps * (CACHED_STEPS_SHARE if has_step_cache else 1)
    rate = speed.half_tflops * 1e12 * EAGER_SHARE
    text = sum(2 * part.parameters * model.limits.max_sequence_length for part in model.text_encoders) / rate
    decode = VAE_FLOP_OF_PIXEL * vae_share(model) ** 2 * pixels / rate
    match way.offload:
        case "model":
            return computed * step + text + decode + sum(part.bytes for part in parts) / MODEL_OFFLOAD_BYTES_PER_S
        case "group":
            text += sum(part.bytes for part in parts[1:]) / GROUP_BYTES_PER_S
            return computed * max(step, parts[0].bytes / GROUP_BYTES_PER_S) + text + decode
        case "sequential":
            text += sum(part.bytes for part in parts[1:]) / SEQUENTIAL_BYTES_PER_S
            return computed * (step + parts[0].bytes / SEQUENTIAL_BYTES_PER_S) + text + decode
        case _:
            return computed * step + text + decode


def _step_seconds(
    model: ModelSpec, speed: Speed, quantisation: Quantisation, *, pixels: int, is_compiled: bool
) -> float:
    linear, attention = step_flop(model, pixels=pixels)
    share = COMPILED_SHARE if is_compiled else EAGER_SHARE
    half = speed.half_tflops * 1e12 * share
    if quantisation in DYNAMIC and speed.low_tflops is not None:
        return linear / (speed.low_tflops * 1e12 * share) + attention / half
    slowdown = WEIGHT_ONLY_SLOWDOWN if quantisation == "int8_weight_only" and not is_compiled else 1.0
    return (linear + attention) / half * slowdown
