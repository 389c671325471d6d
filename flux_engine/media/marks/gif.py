"""Marks in a GIF: XMP in an application extension behind the screen's description; a C2PA manifest is in another."""

from __future__ import annotations

from typing import Final

from flux_engine.media.marks.statement import Statement
from flux_engine.media.marks.xmp import xmp_packet

SCREEN_END: Final = 13  # the signature and the logical screen descriptor
EXTENSION: Final = b"\x21\xff\x0b"
XMP: Final = EXTENSION + b"XMP DataXMP"
MANIFEST: Final = EXTENSION + b"C2PA_GIF"
# A reader that takes the packet for blocks, each with its length in front, lands in this and so at the last byte.
TRAILER: Final = b"\x01" + bytes(range(0xFF, -1, -1)) + b"\0"


def marked(data: bytes, statement: Statement) -> bytes:
    packet = xmp_packet(statement)
    at = _colours_end(data)
    return b"".join((data[:at], XMP, packet, TRAILER, data[at:]))


def unmarked(data: bytes) -> bytes:
    """Without the marks that stand in front of the first frame, where they are written."""
    view, start = memoryview(data), _colours_end(data)
    parts, at = [view[:start]], start
    while data.startswith(EXTENSION, at):
        end = _blocks_end(data, at + 14)
        if not data.startswith((XMP, MANIFEST), at):
            parts.append(view[at:end])
        at = end
    return b"".join((*parts, view[at:]))


def _colours_end(data: bytes) -> int:
    """Where the global colour table ends, if there is one."""
    packed = data[10]
    return SCREEN_END + (3 << ((packed & 7) + 1) if packed & 0x80 else 0)


def _blocks_end(data: bytes, at: int) -> int:
    """Behind the empty block that ends the blocks at `at`."""
    while data[at]:
        at += 1 + data[at]
    return at + 1
