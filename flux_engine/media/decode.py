"""Pictures that a client sends: bytes that may be anything -> an upright sRGB picture or a mask, or a refusal.

The bytes alone tell the format, and the size in pixels is checked before anything is decoded. A picture is read as its
sender's viewer shows it: turned upright, transparency over white, an embedded profile converted to sRGB; of an
animation the first frame. What cannot be used of it is a warning. How a mask is read is in mask.py.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from flux_engine.errors import InputFetchFailed, InvalidInput
from flux_engine.media.colour import ProfileUnusable, as_srgb, has_transparency
from flux_engine.media.foreign import foreign_format
from flux_engine.units import MIB

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")  # not AVIF: its decoder ignores the announced size (docs/facts.md)
MAY_MOVE: Final = (b"\x89PNG", b"RIFF", b"GIF8")
MAX_PIXELS: Final = 16_000_000
MAX_SCANS: Final = 200  # a usual progressive JPEG has 10
ORIENTATION: Final = 0x0112  # the EXIF tag
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
NO_PROFILE: Final = (
    "a colour profile that cannot be used, so its colours are read as sRGB; convert it to sRGB to be exact"
)
DAMAGED: Final = (  # raised by Pillow's readers for files that are truncated or forged
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, AttributeError, MemoryError),
    *(struct.error, RuntimeError),
)

Read = TypeVar("Read")

PngImagePlugin.MAX_TEXT_CHUNK = 16 * MIB  # of a compressed note or profile; Pillow's own 1 MB costs whole pictures

# Pillow warns about odd metadata and about many pixels, which are checked here. The filters are set once, because
# `catch_warnings` in several decoding threads would restore one another's filters.
for _category in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_category, module="PIL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of one job: `image` RGB, and `mask` L of the same size, white where it is repainted; `references`
    RGB, of any sizes, in the order of the job."""

    image: Image.Image | None = None
    mask: Image.Image | None = None
    references: tuple[Image.Image, ...] = ()
    maps: tuple[Image.Image, ...] = ()  # of `control`, in the order of the job

    @property
    def shape(self) -> tuple[int, int] | None:
        """Width and height of the picture whose shape a job without a size keeps: the first one."""
        first = self.image or next(iter(self.references), None)
        return first.size if first is not None else None

    def looked_at(self) -> dict[str, tuple[int, int]]:
        """The size of each picture that a model of references looks at whole, by field."""
        alone = {"image": self.image.size} if self.image is not None and self.mask is None else {}
        return alone | {f"images[{index}]": picture.size for index, picture in enumerate(self.references)}

    @property
    def painted(self) -> tuple[int, int, int, int] | None:
        """The box around what the mask leaves to paint; None without any."""
        return None if self.mask is None else self.mask.getbbox()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture in RGB. `way` marks, in the fingerprint, that its colours were converted from an embedded profile;
    `warnings` say what of the file is not used."""

    picture: Image.Image
    way: str = ""
    warnings: tuple[str, ...] = ()


def decode_picture(data: bytes, field: str) -> Decoded:
    """`data` as its sender sees it: upright, in sRGB, the first frame of several, transparency over white.

    Raises InvalidInput for anything but a whole picture of a known format, and InputFetchFailed for too many pixels.
    """
    decoded = read_picture(data, field, lambda picture: _as_seen(picture, field))
    return replace(decoded, warnings=(*film_warnings(data, field), *decoded.warnings))


def read_picture(data: bytes, field: str, read: Callable[[Image.Image], Read]) -> Read:
    """`read` of the opened picture, turned upright. Raises as `decode_picture`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(picture, field)
            _check_scans(data, field)
            picture.load()
            return read(_upright(picture))
    except Image.DecompressionBombError:  # far over the limit; Pillow raises before the size is known here
        raise InputFetchFailed(
            f"`{field}` has more than {MAX_PIXELS / 1e6:.0f} megapixels; send a smaller picture", field=field
        ) from None
    except UnidentifiedImageError:
        raise InvalidInput(f"`{field}` {foreign_format(data)}; send PNG, JPEG, WebP or GIF", field=field) from None
    except DAMAGED:
        raise InvalidInput(f"`{field}` is a damaged or truncated picture; send it whole", field=field) from None


def film_warnings(data: bytes, field: str) -> tuple[str, ...]:
    """What to say of a picture that moves, which is read as its first frame."""
    if not data.startswith(MAY_MOVE):  # a phone's JPEG holds a second picture, which no viewer plays
        return ()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if not getattr(picture, "is_animated", False):
                return ()
    except (UnidentifiedImageError, Image.DecompressionBombError, *DAMAGED):  # of a later frame
        return ()
    return (f"`{field}` is animated: only its first frame is used",)


def announced_pixels(data: bytes) -> int:
    """The pixels that the head of a picture announces; 0 where it cannot be read, which `decode_picture` refuses."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return picture.width * picture.height
    except (UnidentifiedImageError, Image.DecompressionBombError, *DAMAGED):
        return 0


def fitted(picture: Image.Image, *, width: int, height: int) -> Image.Image:
    """`picture` cropped about its centre to the shape of `width` x `height` pixels, and resized to it; a mask without
    the ringing that would reach beyond its edges."""
    how = Image.Resampling.BILINEAR if picture.mode == "L" else Image.Resampling.LANCZOS
    return ImageOps.fit(picture, (width, height), how)


def _as_seen(picture: Image.Image, field: str) -> Decoded:
    picture = eight_bits(picture)
    said: tuple[str, ...] = ()
    try:
        converted = as_srgb(picture)
    except ProfileUnusable:
        converted, said = None, (f"`{field}` has {NO_PROFILE}",)
    whole = _over_white(converted or picture)
    whole.info = {}  # Pillow would copy profiles and comments into every picture made from this one
    return Decoded(whole, "" if converted is None else "+srgb", said)


def eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of 16-bit grey values scaled to 8 bits; `convert` would clip them to white."""
    if not picture.mode.startswith("I"):
        return picture
    scaled = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    scaled.info = {name: value for name, value in picture.info.items() if name == "icc_profile"}
    return scaled


def _check_size(picture: Image.Image, field: str) -> None:
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise InputFetchFailed(
            f"`{field}` has {pixels:,} pixels; this worker takes up to {MAX_PIXELS:,}, send a smaller picture",
            field=field,
        )


def _check_scans(data: bytes, field: str) -> None:
    """Refuse a JPEG of many tiny scans: each makes the decoder pass over the whole picture."""
    if data.startswith(b"\xff\xd8") and scans_of(data, at_most=MAX_SCANS) > MAX_SCANS:
        raise InvalidInput(f"`{field}` is a JPEG of more than {MAX_SCANS} scans; save it anew", field=field)


def scans_of(jpeg: bytes, *, at_most: int) -> int:
    """The number of scans up to the end of image, or `at_most` + 1 where there are more.

    Bytes that only look like a scan do not count: a thumbnail in a camera's metadata, a film behind the picture.
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
    """`picture` turned by its metadata; unreadable metadata is ignored."""
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except DAMAGED:
        return picture
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _over_white(picture: Image.Image) -> Image.Image:
    if has_transparency(picture):
        whole = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return picture.convert("RGB")
