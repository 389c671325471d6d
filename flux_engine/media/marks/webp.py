"""Marks in a WebP: XMP in a chunk `XMP ` that the header's flags announce; a C2PA manifest is a chunk `C2PA`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Final

from PIL import Image

from flux_engine.media.marks.statement import Statement
from flux_engine.media.marks.xmp import xmp_packet

EXTENDED: Final = b"VP8X"
XMP: Final = b"XMP "
MANIFEST: Final = b"C2PA"
HAS_XMP: Final = 0x04
HAS_ALPHA: Final = 0x10

Chunk = tuple[bytes, bytes | memoryview]


def marked(data: bytes, statement: Statement) -> bytes:
    packet = xmp_packet(statement)
    chunks = list(_chunks(data))
    if chunks[0][0] != EXTENDED:
        chunks.insert(0, (EXTENDED, _extended_header(data)))
    return _file([*_with_flag(chunks, is_set=True), (XMP, packet)])


def unmarked(data: bytes) -> bytes:
    kept = [chunk for chunk in _chunks(data) if chunk[0] not in (XMP, MANIFEST)]
    return _file(_with_flag(kept, is_set=False))


def _chunks(data: bytes) -> Iterator[Chunk]:
    view, at = memoryview(data), 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], view[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _with_flag(chunks: Sequence[Chunk], *, is_set: bool) -> list[Chunk]:
    """The chunks with the flag of XMP as it should be; a file without an extended header has no flags."""
    first, rest = chunks[0], chunks[1:]
    if first[0] == EXTENDED:
        flags = first[1][0] | HAS_XMP if is_set else first[1][0] & ~HAS_XMP
        first = (EXTENDED, bytes((flags, *first[1][1:])))
    return [first, *rest]


def _extended_header(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:  # reads the head, not the pixels
        flags = HAS_ALPHA if picture.mode == "RGBA" else 0
        width, height = picture.size
    return bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _file(chunks: Sequence[Chunk]) -> bytes:
    parts: list[bytes | memoryview] = []
    for name, body in chunks:
        parts += (name, len(body).to_bytes(4, "little"), body, b"\0" * (len(body) % 2))
    return b"".join((b"RIFF", (4 + sum(map(len, parts))).to_bytes(4, "little"), b"WEBP", *parts))
