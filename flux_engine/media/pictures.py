"""Pictures that a client sends: bytes that may be anything -> an upright RGB picture, or a refusal.

The format is told from the bytes alone. The size in pixels is looked at before anything is decoded.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flux_engine.errors import InputFetchFailed, InvalidInput

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MAX_PIXELS: Final = 16_000_000


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on odd metadata and on sizes, which are checked here
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture, field)
                picture.load()
                return _over_white(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:  # far over the limit, found before the size is known here
        raise InputFetchFailed(
            f"`{field}` has more than {MAX_PIXELS / 1e6:.0f} megapixels; send a smaller picture", field=field
        ) from None
    except UnidentifiedImageError:
        raise InvalidInput(f"`{field}` must be a PNG, JPEG or WebP picture", field=field) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, MemoryError):
        # what Pillow's readers are known to raise for a file that is cut off or made up
        raise InvalidInput(
            f"`{field}` is a picture that is broken off or damaged; send it whole", field=field
        ) from None


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


def _over_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits: convert() alone would clip them to white
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return picture.convert("RGB")
