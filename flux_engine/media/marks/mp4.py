"""Marks in an MP4: XMP in a `uuid` box behind everything else; a C2PA manifest is in one behind the first box.

No box that stays changes its place: the file's tables point at bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flux_engine.media.marks.statement import Statement
from flux_engine.media.marks.xmp import xmp_packet

XMP: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
MANIFEST: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def marked(data: bytes, statement: Statement) -> bytes:
    packet = xmp_packet(statement)
    return b"".join((data, (24 + len(packet)).to_bytes(4), b"uuid", XMP, packet))


def unmarked(data: bytes) -> bytes:
    """Without marks; one in front of the pictures leaves free space, so that nothing moves."""
    view = memoryview(data)
    parts: list[bytes | memoryview] = []
    for at, end in _boxes(data):
        if data[at + 4 : at + 8] != b"uuid" or data[at + 8 : at + 24] not in (XMP, MANIFEST):
            parts.append(view[at:end])
        elif end < len(data):
            parts.append((end - at).to_bytes(4) + b"free" + bytes(end - at - 8))
    return b"".join(parts)


def _boxes(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        end = at + size if size else len(data)
        yield at, end
        at = end
