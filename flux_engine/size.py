"""The size of a picture: the ways in which a client may write it, and the pixels that come of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.fields import SharedFields
from flux_engine.limits import ModelLimits

PIXELS_PER_MEGAPIXEL: Final = 1024 * 1024
SIZE_MULTIPLE: Final = 16
SIDE_BOUNDS: Final = (64, 2048)
MIN_MEGAPIXELS: Final = 0.25
SIZE_ALIASES: Final = ("size", "image_size")
IMAGE_SIZE_PRESETS: Final = {  # fal's names
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


def written_size(name: str, value: object) -> tuple[object, object]:
    """Width and height of `size` or `image_size`; their bounds are checked later, as those of the fields."""
    if isinstance(value, str) and value in IMAGE_SIZE_PRESETS:
        return IMAGE_SIZE_PRESETS[value]
    if isinstance(value, str):
        parts = value.lower().replace("*", "x").split("x")
        if len(parts) == 2 and all(p.strip().isascii() and p.strip().isdigit() and len(p) < 9 for p in parts):
            return int(parts[0]), int(parts[1])
    if isinstance(value, Mapping) and set(value) == {"width", "height"}:
        return value["width"], value["height"]
    presets = ", ".join(IMAGE_SIZE_PRESETS)
    raise InvalidInput(f'`{name}` must be "WIDTHxHEIGHT", {{"width", "height"}} or one of {presets}', field=name)


def pixel_size(given: SharedFields, limits: ModelLimits, warnings: list[str]) -> tuple[int, int]:
    """The effective width and height; adds to `warnings` where they were rounded. Raises InvalidInput."""
    if given.aspect_ratio is not None:
        if given.width is not None or given.height is not None:
            raise InvalidInput(
                "`aspect_ratio` excludes `width` and `height`; send one or the other", field="aspect_ratio"
            )
        return _size_of_ratio(given.aspect_ratio, given.megapixels, limits)
    if given.megapixels is not None:
        raise InvalidInput(
            "`megapixels` needs `aspect_ratio`; with `width` and `height` leave it out", field="megapixels"
        )
    width, height = given.width or limits.side, given.height or limits.side
    rounded = _to_multiple(width), _to_multiple(height)
    if rounded != (width, height):
        warnings.append(
            f"size rounded from {width}x{height} to {rounded[0]}x{rounded[1]}, multiples of {SIZE_MULTIPLE}"
        )
    if rounded[0] * rounded[1] > limits.max_pixels:
        raise InvalidInput(
            f"`width` x `height` is {rounded[0] * rounded[1]} pixels; {limits.id} makes at most {limits.max_pixels}",
            field="width" if given.width is not None else "height",
        )
    return rounded


def _size_of_ratio(ratio: str, megapixels: float | None, limits: ModelLimits) -> tuple[int, int]:
    """Multiples of 16 whose product is near `megapixels`, or near the model's own size where none is given."""
    most = limits.max_pixels / PIXELS_PER_MEGAPIXEL
    if megapixels is not None and not MIN_MEGAPIXELS <= megapixels <= most:
        raise InvalidInput(
            f"`megapixels` must be a number from {MIN_MEGAPIXELS:g} to {most:g} for {limits.id}; got {megapixels:g}",
            field="megapixels",
        )
    pixels = limits.side**2 if megapixels is None else megapixels * PIXELS_PER_MEGAPIXEL
    across, down = (int(part) for part in ratio.split(":"))
    width = _to_multiple(math.sqrt(pixels * across / down))
    height = _to_multiple(math.sqrt(pixels * down / across))
    while width * height > limits.max_pixels:
        width, height = (width - SIZE_MULTIPLE, height) if width >= height else (width, height - SIZE_MULTIPLE)
    return width, height


def _to_multiple(side: float) -> int:
    nearest = math.floor(side / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE
    return min(max(nearest, SIDE_BOUNDS[0]), SIDE_BOUNDS[1])
