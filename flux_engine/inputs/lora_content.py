"""What stands in place of a LoRA, by its first bytes: another kind of file, or a server's answer.

`net.content` knows pages, errors and archives. This module adds what concerns LoRAs alone, and advice that suits them.
"""

from __future__ import annotations

from typing import Final

from flux_engine.net.content import HEAD_BYTES, Content, content_of

START_BYTES: Final = HEAD_BYTES  # the part of a file that is looked at

TO_SAFETENSORS: Final = "convert it to safetensors and send that"
UNPACK: Final = "unpack it and send the .safetensors file in it"
ITSELF: Final = "send the LoRA itself, a .safetensors file"
FILES: Final = (  # where the magic bytes stand, the bytes, what it is, what to do
    (0, b"\x80\x02", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"\x80\x03", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"\x80\x04", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"\x80\x05", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"GGUF", "a GGUF file, a quantised model", ITSELF),
    (0, b"\x89HDF", "an HDF5 file", TO_SAFETENSORS),
    (0, b"\x93NUMPY", "a NumPy file", TO_SAFETENSORS),
    (0, b"\x89PNG", "a picture (PNG)", ITSELF),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", ITSELF),
    (0, b"GIF8", "a picture (GIF)", ITSELF),
    (8, b"WEBP", "a picture (WebP)", ITSELF),
    (4, b"ftyp", "a video or picture", ITSELF),
    (0, b"\x1aE\xdf\xa3", "a video", ITSELF),
    (0, b"%PDF", "a PDF document", ITSELF),
)
PYTORCH: Final = Content(f"a PyTorch file (.pt, .ckpt, .bin), a pickle that can run code; {TO_SAFETENSORS}")
TEXT: Final = Content(f"text; {ITSELF}", is_answer=True)


def other_content(start: bytes) -> Content | None:
    """What a file that begins with `start` is; None where nothing is known of it, as for a safetensors file."""
    for position, magic, what, advice in FILES:
        if start[position : position + len(magic)] == magic:
            if magic.startswith(b"PK") and b"/data.pkl" in start[:256]:
                return PYTORCH
            return Content(f"{what}; {advice}")
    if (known := content_of(start)) is not None:
        return known
    return TEXT if _is_text(start) else None


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8-sig", "strict" if len(start) < START_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
