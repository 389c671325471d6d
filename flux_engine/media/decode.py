"""Pictures that a client sends: bytes that may be anything -> an upright RGB picture, or a refusal.

The format is told from the bytes alone. The size in pixels is looked at before anything is decoded.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flux_engine.errors import InputFetchFailed, InvalidInput

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MAX_PIXELS: Final = 16_000_000
MAX_SCANS: Final = 200  # of a JPEG; the usual progressive one has 10
ORIENTATION: Final = 0x0112  # of EXIF
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
START_OF_SCAN: Final = 0xDA
END_OF_IMAGE: Final = 0xD9
WITHOUT_LENGTH: Final = (0x01, *range(0xD0, 0xD9))
DAMAGED: Final = (  # what Pillow's readers are known to raise for a file that is cut off or made up
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, AttributeError, MemoryError),
    struct.error,
)

# Pillow warns of odd metadata and of many pixels, which are checked here. Set once: `catch_warnings` in the threads
# that decode would restore each other's filters.
for _category in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_category, module="PIL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of one job: `image` RGB, `mask` L of the same size, white where it is to be repainted."""

    image: Image.Image | None = None
    mask: Image.Image | None = None


def decode_picture(data: bytes, field: str) -> Image.Image:
    """`data` as it is meant to be seen: turned upright, the first frame of several, transparency over white.

    Raises InvalidInput for what is no whole picture of a known format, and InputFetchFailed for too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(picture, field)
            _check_scans(data, field)
            picture.load()
            whole = _over_white(_upright(picture))
    except Image.DecompressionBombError:  # far over the limit, found before the size is known here
        raise InputFetchFailed(
            f"`{field}` has more than {MAX_PIXELS / 1e6:.0f} megapixels; send a smaller picture", field=field
        ) from None
    except UnidentifiedImageError:
        raise InvalidInput(f"`{field}` must be a PNG, JPEG or WebP picture", field=field) from None
    except DAMAGED:
        raise InvalidInput(
            f"`{field}` is a picture that is broken off or damaged; send it whole", field=field
        ) from None
    whole.info = {}  # profiles and comments, which Pillow would carry on into every picture made of this one
    return whole


def fitted(picture: Image.Image, *, width: int, height: int) -> Image.Image:
    """`picture` cropped about its centre to the shape of `width` x `height` pixels, and resized to it."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def as_mask(picture: Image.Image, *, size: tuple[int, int]) -> Image.Image:
    """`picture` as a mask for a picture of `size`."""
    return picture.convert("L").resize(size, Image.Resampling.BILINEAR)


def _check_size(picture: Image.Image, field: str) -> None:
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise InputFetchFailed(
            f"`{field}` has {pixels:,} pixels; this worker takes up to {MAX_PIXELS:,}, send a smaller picture",
            field=field,
        )


def _check_scans(data: bytes, field: str) -> None:
    """A JPEG may ask for the whole picture to be gone through again with every few bytes."""
    if data.startswith(b"\xff\xd8") and scans_of(data, at_most=MAX_SCANS) > MAX_SCANS:
        raise InvalidInput(f"`{field}` is a JPEG of more than {MAX_SCANS} scans; save it anew", field=field)


def scans_of(jpeg: bytes, *, at_most: int) -> int:
    """How many scans a JPEG decoder goes through until the end of image, or `at_most` + 1 where it is more.

    What only looks like a scan is not counted: the thumbnail in a camera's metadata, a film behind the picture.
    """
    scans, position = 0, 2
    while scans <= at_most and (marker := MARKER.search(jpeg, position)) is not None:
        position = marker.end()
        kind = marker[1][0]
        if kind == END_OF_IMAGE:
            break
        scans += kind == START_OF_SCAN
        if kind not in WITHOUT_LENGTH:
            position += max(2, int.from_bytes(jpeg[position : position + 2]))
    return scans


def _upright(picture: Image.Image) -> Image.Image:
    """`picture` turned as its metadata says. Metadata that cannot be read says nothing."""
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except DAMAGED:
        return picture
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _over_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits: convert() alone would clip them to white
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return picture.convert("RGB")
