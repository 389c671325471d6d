"""Pictures to bytes: PNG, JPEG and WebP, each with a record of its making in the file's own metadata."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any, Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE: Final = "flux-engine (AI-generated image)"
PNG_LEVEL: Final = 1  # at 1024x1024 94 ms against 365 ms at the default level (docs/facts.md)
WEBP_METHOD: Final = 0
PREVIEW_SIDE: Final = 256
MAX_SEGMENT_BYTES: Final = 65_533  # of a JPEG, without the two that say its length

_JSON_TEXTS = ("seed", "model", "parameters")
_OTHER_TEXTS = ("Software", "XML:com.adobe.xmp")
_EXIF_SOFTWARE = 0x0131
_EXIF_IMAGE_DESCRIPTION = 0x010E
_EXIF_IFD = 0x8769
_EXIF_USER_COMMENT = 0x9286


def encode_image(image: Image.Image, output_format: str, *, quality: int, made_from: Mapping[str, Any]) -> bytes:
    """`image` (RGB) as a file of `output_format` (png, jpg or webp).

    `quality` is 1 to 100 and has no effect on png. `made_from` (prompt, seed, model, parameters) is written into the
    file, as PNG text or as EXIF description and comment; without the parameters where a JPEG has no room for them.
    """
    buffer = io.BytesIO()
    if output_format == "png":
        image.save(buffer, "PNG", compress_level=PNG_LEVEL, pnginfo=_png_text(made_from))
    elif output_format == "jpg":
        image.save(buffer, "JPEG", quality=quality, exif=_exif_of_jpeg(made_from))
    else:
        image.save(buffer, "WEBP", quality=quality, method=WEBP_METHOD, exif=_exif(made_from))
    return buffer.getvalue()


def made_from_of(picture: Image.Image) -> dict[str, Any]:
    """The record that `encode_image` wrote into a PNG."""
    said = {str(name): value for name, value in picture.info.items() if isinstance(value, str)}
    return {
        name: json.loads(value) if name in _JSON_TEXTS else value
        for name, value in said.items()
        if name not in _OTHER_TEXTS
    }


def preview_data_uri(image: Image.Image, *, xmp: bytes = b"") -> str:
    """`image` as a `data:` URI of a WebP of at most 256 pixels a side, with the packet `xmp`."""
    small = image.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=60, method=WEBP_METHOD, xmp=xmp)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _png_text(made_from: Mapping[str, Any]) -> PngInfo:
    text = PngInfo()
    text.add_text("Software", SOFTWARE)
    for name, value in made_from.items():
        if isinstance(value, str) and not value.isascii():
            text.add_itxt(name, value)
        else:
            text.add_text(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=True))
    return text


def _exif_of_jpeg(made_from: Mapping[str, Any]) -> Image.Exif:
    """Without the parameters where these are more than one segment holds, as thirty boxes with long prompts are."""
    exif = _exif(made_from)
    if len(exif.tobytes()) <= MAX_SEGMENT_BYTES:
        return exif
    return _exif({name: value for name, value in made_from.items() if name != "parameters"})


def _exif(made_from: Mapping[str, Any]) -> Image.Exif:
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = SOFTWARE
    exif[_EXIF_IMAGE_DESCRIPTION] = str(made_from.get("prompt", "")).encode("ascii", "replace").decode()
    comment = b"UNICODE\0" + json.dumps(dict(made_from), ensure_ascii=False).encode("utf-16-be")
    exif.get_ifd(_EXIF_IFD)[_EXIF_USER_COMMENT] = comment
    return exif
