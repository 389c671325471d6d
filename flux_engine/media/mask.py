"""What a mask says, in the ways in which programs save one -> L of the picture's size, white where it is repainted.

White on black is the contract's form. Besides it: strokes on transparency, a picture with a transparent hole, and the
numbers 0 and 1. What is read in another way than its pixels show, and a mask that repaints nothing or everything, is a
warning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flux_engine.media.colour import has_transparency
from flux_engine.media.decode import film_warnings, read_picture

WHITE_FROM: Final = 128  # the pipelines repaint from half of white on
MAX_STRETCH: Final = 0.03  # how far a shape is stretched without a warning
NOISE: Final = 8  # levels that compression adds to black and takes from white

_ALIKE: Final = 64  # levels between strokes of one colour
_PHOTO_SHARE: Final = 0.2  # with more middle tones the opaque part is a picture, not a mask

Levels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Mask:
    """`picture` in L; `way` marks, in the fingerprint, a reading that the pixels do not show."""

    picture: Image.Image
    way: str = ""
    warnings: tuple[str, ...] = ()


def decode_mask(data: bytes, field: str) -> Mask:
    """Read a mask of any size. Raises as `decode.decode_picture`."""
    mask = read_picture(data, field, _read)
    return replace(mask, warnings=(*film_warnings(data, field), *mask.warnings))


def as_large_as(mask: Mask, size: tuple[int, int]) -> Mask:
    """`mask` resized to its picture's `size`."""
    warnings = [*mask.warnings, *_extent_warnings(mask.picture)]
    shape, wanted = mask.picture.width / mask.picture.height, size[0] / size[1]
    if abs(shape / wanted - 1) > MAX_STRETCH:
        warnings.append(
            f"`mask` is {mask.picture.width}x{mask.picture.height} and `image` is {size[0]}x{size[1]}: the mask is "
            "stretched to the picture's shape"
        )
    return Mask(_firm(mask.picture.resize(size, Image.Resampling.BILINEAR)), mask.way, tuple(warnings))


def _firm(mask: Image.Image) -> Image.Image:
    """`mask` with nearly black as black and nearly white as white: a JPEG's black is rarely 0 everywhere."""
    return mask.point(lambda level: round(min(max(level - NOISE, 0) * 255 / (255 - 2 * NOISE), 255)))


def _extent_warnings(mask: Image.Image) -> list[str]:
    low, high = mask.getextrema()
    if isinstance(high, int | float) and high < WHITE_FROM:
        shade = "black" if high == 0 else "dark"
        return [f"`mask` is {shade} everywhere, so nothing is repainted; paint white what shall change"]
    if isinstance(low, int | float) and low >= WHITE_FROM:
        return ["`mask` is white everywhere, so the whole picture is repainted; paint black what shall stay"]
    return []


def _read(picture: Image.Image) -> Mask:
    if picture.mode.startswith("I"):  # before its transparent level, for which Pillow would clip all others to white
        return _of_numbers(np.asarray(picture).astype(np.int64))
    if has_transparency(picture):
        rgba = picture.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"))
        if alpha.min() < 255:
            return _of_alpha(np.asarray(rgba.convert("RGB").convert("L")), alpha)
        picture = rgba
    return _of_numbers(np.asarray(picture.convert("RGB").convert("L")).astype(np.int64), depth=8)


def _of_numbers(values: NDArray[Any], *, depth: int = 16) -> Mask:
    """Grey values; those of two levels far below white are the 0 and 1, or the 0 and 255 in 16 bits, of a program."""
    high = int(values.max(initial=0))
    if depth == 16 and high > 255:
        return Mask(_picture((values >> 8).clip(0, 255)))
    if depth == 16 and high > 1:
        return Mask(
            _picture(values.clip(0, 255)), "+levels", ("`mask` holds 8-bit levels in 16 bits; 255 is read as white",)
        )
    if high == 1:
        return Mask(_picture(values * 255), "+levels", ("`mask` holds the numbers 0 and 1; 1 is read as white",))
    return Mask(_picture(values))


def _of_alpha(levels: Levels, alpha: Levels) -> Mask:
    """A mask whose shape lies in its transparency."""
    painted = levels[alpha >= WHITE_FROM]
    strongest = int(alpha.max(initial=0))
    if painted.size == 0 and strongest > 0:
        painted = levels[alpha > 0]
    if painted.size == 0:
        return Mask(_picture(alpha), "+alpha")
    middle = float(((painted > 31) & (painted < 224)).mean())
    if int(painted.max()) - int(painted.min()) < _ALIKE:
        scaled = alpha.astype(np.float32) * (255 / strongest)
        said = "`mask` has transparency: what is painted on it is repainted; send white on black to be exact"
        return Mask(_picture(scaled.round()), "+alpha", (said,))
    if middle > _PHOTO_SHARE:
        said = "`mask` is a picture with a transparent hole: the hole is repainted; send white on black to be exact"
        return Mask(_picture(255 - alpha), "+hole", (said,))
    seen = levels.astype(np.float32) * (alpha.astype(np.float32) / 255)
    said = "`mask` has transparency, which is read as black; send white on black to be exact"
    return Mask(_picture(seen.round()), "+over black", (said,))


def _picture(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))
