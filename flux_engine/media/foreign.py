"""The names of picture formats that are not read, so that a refusal says what was sent and why."""

from __future__ import annotations

from typing import Final

TWICE: Final = "is a picture whose base64 was encoded once more"
FOREIGN: Final = (
    (b"BM", "is a BMP picture"),
    (b"II*\0", "is a TIFF or camera raw picture"),
    (b"MM\0*", "is a TIFF or camera raw picture"),
    (b"\0\0\1\0", "is an icon (ICO)"),
    (b"8BPS", "is a Photoshop document"),
    (b"\xff\x0a", "is a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "is a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "is a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "is a JPEG 2000 picture"),
    (b"%!PS", "is a PostScript file"),
    (b"v/1\x01", "is an OpenEXR picture"),
    (b"\x93NUMPY", "is a NumPy array"),
    *((begin, TWICE) for begin in (b"iVBORw0KGgo", b"/9j/", b"UklGR", b"R0lGOD", b"data:image/")),
)
_HEIF_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def foreign_format(data: bytes) -> str:
    """What `data`, which no reader here knows, is: a clause that begins with `is`."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "is an AVIF picture"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "is a HEIC picture, as iPhones save them"
    return next((what for magic, what in FOREIGN if data.startswith(magic)), "is no picture of a known format")
