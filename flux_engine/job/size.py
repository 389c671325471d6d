"""The size of a picture: the forms in which clients write it, and the effective pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import SIDE_BOUNDS, AspectRatio, SharedFields
from flux_engine.job.limits import MIN_MEGAPIXELS, PIXELS_PER_MEGAPIXEL, ModelLimits
from flux_engine.job.validation import shown

SIZE_MULTIPLE: Final = 16
SIZE_ALIASES: Final = ("size", "image_size")
IMAGE_SIZE_PRESETS: Final = {  # fal's names
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Pixels, multiples of 16, and the ratio and megapixels from which they were derived."""

    width: int
    height: int
    aspect_ratio: AspectRatio | None = None
    megapixels: float | None = None


def written_size(name: str, value: object) -> dict[str, object]:
    """The `width` and `height` of `size` or `image_size`, whose bounds are checked later with those of the fields.

    An object may lack one side: see `require_both_sides`.
    """
    if isinstance(value, str) and value in IMAGE_SIZE_PRESETS:
        width, height = IMAGE_SIZE_PRESETS[value]
        return {"width": width, "height": height}
    if isinstance(value, str):
        parts = value.lower().replace("*", "x").split("x")
        if len(parts) == 2 and all(p.strip().isascii() and p.strip().isdigit() and len(p) < 9 for p in parts):
            return {"width": int(parts[0]), "height": int(parts[1])}
    sides = {side: part for side, part in value.items() if part is not None} if isinstance(value, Mapping) else {}
    if not sides or not set(sides) <= {"width", "height"}:
        raise _not_a_size(name, value)
    return sides


def require_both_sides(name: str, value: object, given: Mapping[str, object]) -> None:
    """Raise InvalidInput where `name` gave one side and no other field gave the other."""
    if not {"width", "height"} <= set(given):
        raise _not_a_size(name, value)


def _not_a_size(name: str, value: object) -> InvalidInput:
    presets = ", ".join(IMAGE_SIZE_PRESETS)
    return InvalidInput(
        f'`{name}` must be "WIDTHxHEIGHT", {{"width", "height"}} or one of {presets}; got {shown(value)}', field=name
    )


def pixel_size(given: SharedFields, limits: ModelLimits, warnings: list[str], *, written_as: str = "width") -> Size:
    """The effective size; adds to `warnings` where it was rounded or lowered. Raises InvalidInput.

    `written_as` is the field in which the client sent it.
    """
    if given.aspect_ratio is not None:
        return _size_of_ratio(given, given.aspect_ratio, limits, warnings)
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
        name = "height" if written_as == "width" and given.width is None else written_as
        raise InvalidInput(
            f"{rounded[0]}x{rounded[1]} is {rounded[0] * rounded[1]} pixels; {limits.id} makes at most "
            f"{limits.max_pixels}: lower `{name}`",
            field=name,
        )
    return Size(width=rounded[0], height=rounded[1])


def size_like(picture: tuple[int, int], limits: ModelLimits, *, keeps_pixels: bool = False) -> tuple[int, int]:
    """The sides of a result in the shape of `picture`, of the model's own area; or, with `keeps_pixels`, of the
    picture's, where that is larger and the model makes as much."""
    area = limits.side**2
    if keeps_pixels:
        area = max(area, min(picture[0] * picture[1], limits.max_pixels))
    return _sides(*picture, area / PIXELS_PER_MEGAPIXEL, min(area, limits.max_pixels))[0]


def _size_of_ratio(given: SharedFields, ratio: AspectRatio, limits: ModelLimits, warnings: list[str]) -> Size:
    """Sides in `ratio` with an area near `megapixels`, by default near the model's own size.

    Width and height beside it are accepted where they equal the result, as in the echo of an earlier job.
    """
    own = limits.side**2 / PIXELS_PER_MEGAPIXEL
    megapixels = own if given.megapixels is None else given.megapixels
    if megapixels != own and not MIN_MEGAPIXELS <= megapixels <= limits.max_megapixels:
        raise InvalidInput(
            f"`megapixels` must be {limits.takes()['megapixels']}; got {megapixels:g}", field="megapixels"
        )
    across, down = (int(part) for part in ratio.split(":"))
    (width, height), lowered = _sides(across, down, megapixels, limits.max_pixels)
    if lowered is not None:
        warnings.append(
            f"`megapixels` lowered from {megapixels:g} to {lowered:g}: at {ratio} a larger area has a side over "
            f"{SIDE_BOUNDS[1]} pixels"
        )
    if (given.width is not None or given.height is not None) and (given.width, given.height) != (width, height):
        raise InvalidInput("`aspect_ratio` excludes `width` and `height`; send one or the other", field="aspect_ratio")
    return Size(width=width, height=height, aspect_ratio=ratio, megapixels=lowered or megapixels)


def _sides(across: int, down: int, megapixels: float, max_pixels: int) -> tuple[tuple[int, int], float | None]:
    """Width and height as `across` to `down`, and the megapixels where the longest side forced them down."""
    area = megapixels * PIXELS_PER_MEGAPIXEL / (across * down)
    share = min(1.0, SIDE_BOUNDS[1] / (max(across, down) * math.sqrt(area)))
    long, short = (_to_multiple(part * math.sqrt(area) * share) for part in (max(across, down), min(across, down)))
    while long * short > max_pixels:
        long -= SIZE_MULTIPLE
        short = _to_multiple(long * min(across, down) / max(across, down))
    lowered = round(megapixels * share**2, 4) if share < 0.999 else None  # an echoed one is rounded
    return ((long, short) if across >= down else (short, long)), lowered


def _to_multiple(side: float) -> int:
    nearest = math.floor(side / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE
    return min(max(nearest, SIDE_BOUNDS[0]), SIDE_BOUNDS[1])
