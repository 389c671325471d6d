"""Marks in a JPEG: XMP in an APP1 segment behind JFIF and EXIF; a C2PA manifest is in APP11 segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flux_engine.media.marks.statement import Statement
from flux_engine.media.marks.xmp import xmp_packet

APP0: Final = 0xE0
APP1: Final = 0xE1
APP11: Final = 0xEB
START_OF_SCAN: Final = 0xDA
XMP_NAME: Final = b"http://ns.adobe.com/xap/1.0/\0"
JUMBF: Final = b"JP"


def marked(data: bytes, statement: Statement) -> bytes:
    packet = xmp_packet(statement)
    segment = b"\xff\xe1" + (2 + len(XMP_NAME) + len(packet)).to_bytes(2) + XMP_NAME + packet
    at = 2
    for marker, start, end in _segments(data):
        if marker not in (APP0, APP1):
            break
        at = max(start, end)
    return b"".join((data[:at], segment, data[at:]))


def unmarked(data: bytes) -> bytes:
    view, at = memoryview(data), 2
    parts = [view[:2]]
    for marker, start, end in _segments(data):
        is_xmp = marker == APP1 and data.startswith(XMP_NAME, start + 4)
        is_manifest = marker == APP11 and data.startswith(JUMBF, start + 4)
        if not is_xmp and not is_manifest:
            parts.append(view[start:end])
        at = end
    return b"".join((*parts, view[at:]))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the scan."""
    at = 2
    while data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        yield data[at + 1], at, end
        at = end
