"""How many bytes a model takes on the device and on the host when it runs a given way: arithmetic alone.

Parameter counts are exact. What stands beside the weights is fitted to published and measured peaks (the source beside
each constant) and stays an estimate until `python -m benchmarks.gpu` has run on the card.
"""

from __future__ import annotations

from typing import Final

from flux_engine.models.planning.plan import SLOT_RANK, DType, PartPlan
from flux_engine.models.planning.way import Way
from flux_engine.models.spec import Component, ModelSpec
from flux_engine.settings import Quantisation
from flux_engine.units import GIB

BYTES_OF_DTYPE: Final[dict[DType, int]] = {"bfloat16": 2, "float16": 2, "float32": 4}
PIXELS_OF_TOKEN: Final = 256
REFERENCE_PIXELS: Final = 1024 * 1024  # of a picture that the model looks at beside the one it makes
INT32_FACTOR: Final = 2  # the product of an int8 layer is written in 32 bits first
# Of FLUX's decoder, of 128 channels at full size: 2.4 GiB for 1024x1024 in 16 bits on a GPU, where convolutions take
# room to work in; on a CPU, where they do not, the most that benchmarks.plan_memory and single_file_memory measure.
VAE_VALUES_OF_PIXEL: Final = 1230
VAE_VALUES_OF_PIXEL_ON_CPU: Final = 965
VAE_CHANNELS: Final = 128
PINNED_SHARE: Final = 1.6  # torch rounds each pinned piece up to a power of two: 34.4 GiB for 22.0 of FLUX.1's blocks
GROUPS_IN_FLIGHT: Final = 3  # the block that runs, the next one on its way, the last one not yet freed
LAYERS_IN_FLIGHT: Final = 2  # of a text encoder that is streamed: the layer that runs and the next one
PROCESS_BYTES: Final = 2 * GIB  # of the host's memory, without weights


def part_plans(model: ModelSpec, way: Way) -> tuple[PartPlan, ...]:
    """Each part with its quantisation and its bytes. The VAE and small text encoders stay as they are."""
    schemes: dict[str, Quantisation] = {"transformer": way.transformer, model.largest_text_encoder.name: way.text}
    return tuple(
        PartPlan(
            component=component.name,
            quantisation=schemes.get(component.name, "none"),
            bytes=component_bytes(component, schemes.get(component.name, "none"), way.dtype),
        )
        for component in model.components
    )


def component_bytes(component: Component, quantisation: Quantisation, dtype: DType) -> int:
    """Bytes of a component's weights; 8-bit weights have one scale a row, which is not counted."""
    wide = BYTES_OF_DTYPE[dtype]
    if quantisation != "none":
        return component.linear_parameters + (component.parameters - component.linear_parameters) * wide
    in_float32 = component.float32_parameters if dtype == "float16" else 0
    return component.parameters * wide + in_float32 * (4 - wide)


def slot_bytes(model: ModelSpec, dtype: DType, *, rank: int = SLOT_RANK) -> int:
    """Bytes of a LoRA slot of that rank, which is never quantised."""
    return rank * model.shape.linear_sides * BYTES_OF_DTYPE[dtype]


def resident_bytes(model: ModelSpec, parts: tuple[PartPlan, ...], way: Way, *, gpu_count: int) -> int:
    """Bytes of weights that stand on the device (with `balanced`: on the fullest one) from picture to picture."""
    match way.offload:
        case "none":
            return sum(part.bytes for part in parts)
        case "text":
            return sum(part.bytes for part in parts) - _streamed(parts).bytes
        case "balanced":
            return max(*(part.bytes for part in parts), -(-sum(part.bytes for part in parts) // max(gpu_count, 1)))
        case "group":
            return parts[-1].bytes
        case "model" | "sequential":
            return 0


def working_bytes(
    model: ModelSpec,
    parts: tuple[PartPlan, ...],
    way: Way,
    *,
    pixels: int,
    batch: int = 1,
    references: int = 1,
    is_cpu: bool = False,
) -> int:
    """Bytes beside those that stay: weights that come and go, and activations, in the stage that needs most."""
    encoders = parts[1:-1]
    layer = LAYERS_IN_FLIGHT * _layer_bytes(model, way)
    seen = pixels + reference_pixels(model, count=references)
    denoise = _block_bytes(model, way, seen_pixels=seen, batch=batch)
    decode = _decoder_bytes(model, way, pixels=pixels, batch=batch, is_cpu=is_cpu)
    text = 0
    match way.offload:
        case "none" | "balanced":
            pass
        case "text":
            text = layer
        case "model":
            text = max(part.bytes for part in encoders)
            denoise += parts[0].bytes
            decode += parts[-1].bytes
        case "group":
            text = layer
            denoise += max(GROUPS_IN_FLIGHT * parts[0].bytes // model.shape.blocks, layer)
        case "sequential":
            text = layer
            denoise += layer
            decode += layer
    return max(text, denoise, decode)


def host_bytes(parts: tuple[PartPlan, ...], way: Way) -> int:
    """Bytes of the host's memory while the model runs."""
    weights = sum(part.bytes for part in parts)
    match way.offload:
        case "none" | "balanced":
            return PROCESS_BYTES
        case "text":
            return PROCESS_BYTES + int(_streamed(parts).bytes * PINNED_SHARE)
        case "group":
            return PROCESS_BYTES + int((weights - parts[-1].bytes) * PINNED_SHARE)
        case "model" | "sequential":
            return PROCESS_BYTES + weights


def vae_share(model: ModelSpec) -> float:
    """How wide the decoder is at full size, where it spends its memory and time, against FLUX's."""
    return model.vae_channels / VAE_CHANNELS


def reference_pixels(model: ModelSpec, *, count: int = 1) -> int:
    """Pixels that the model looks at beside those that it makes, with `count` references."""
    one = model.limits.side**2 if model.fits_references else REFERENCE_PIXELS
    return count * one if model.limits.image_use == "reference" else 0


def _streamed(parts: tuple[PartPlan, ...]) -> PartPlan:
    return max(parts[1:-1], key=lambda part: part.bytes)


def _layer_bytes(model: ModelSpec, way: Way) -> int:
    return max(component.largest_layer for component in model.components) * BYTES_OF_DTYPE[way.dtype]


def _block_bytes(model: ModelSpec, way: Way, *, seen_pixels: int, batch: int) -> int:
    tokens = seen_pixels // PIXELS_OF_TOKEN + model.planned_text_tokens
    values = model.shape.block_values * (INT32_FACTOR if way.transformer == "int8_dynamic" else 1)
    return batch * tokens * model.shape.width * values * BYTES_OF_DTYPE[way.dtype]


def _decoder_bytes(model: ModelSpec, way: Way, *, pixels: int, batch: int, is_cpu: bool) -> int:
    """Pictures are decoded one at a time, a tile at a time, beside the finished ones."""
    values = (VAE_VALUES_OF_PIXEL_ON_CPU if is_cpu else VAE_VALUES_OF_PIXEL) * vae_share(model)
    return int(min(pixels, way.tile_side**2) * values * BYTES_OF_DTYPE[way.dtype]) + pixels * batch * 3 * 4
