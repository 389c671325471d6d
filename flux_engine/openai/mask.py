"""OpenAI's masks: what is transparent is repainted. A job's masks: what is white is repainted."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final

from flux_engine.errors import InvalidInput

FORMATS: Final = ("PNG", "WEBP")  # the ones with transparency
NO_ALPHA: Final = "`mask` has no transparency, which is what OpenAI's masks are made of: white was repainted instead"


def white_where_transparent(source: str, warnings: list[str]) -> str:
    """The mask of a job, as a data URI, for OpenAI's `source`: a data URI or base64 of a picture.

    A mask without transparency, such as white on black, is handed on as it is, with a warning: it can only be meant as
    one of a job. Raises InvalidInput.
    """
    from PIL import Image, ImageChops, UnidentifiedImageError  # takes a while, and few requests have a mask

    from flux_engine.media.decode import DAMAGED, MAX_PIXELS

    data = _decoded(source)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InvalidInput(f"`mask` has more than {MAX_PIXELS / 1e6:.0f} megapixels", field="mask")
            if not picture.has_transparency_data:
                warnings.append(NO_ALPHA)
                return source
            alpha = picture.convert("RGBA").getchannel("A")
            if alpha.getextrema()[0] == 255:  # white on black out of a canvas, which has an alpha everywhere
                warnings.append(NO_ALPHA)
                return source
            repainted = ImageChops.invert(alpha)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise InvalidInput("`mask` must be a PNG or WebP picture", field="mask") from None
    except DAMAGED:
        raise InvalidInput("`mask` is a picture that is broken off or damaged; send it whole", field="mask") from None
    encoded = io.BytesIO()
    repainted.save(encoded, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def _decoded(source: str) -> bytes:
    if "://" in source[:16]:
        raise InvalidInput("`mask` must be a file or a data URI: its transparency is read at once", field="mask")
    text = source.partition(",")[2] if source[:5].lower() == "data:" else source
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("`mask` must be base64 of a PNG or WebP picture", field="mask") from None
