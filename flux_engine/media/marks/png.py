"""Marks in a PNG: XMP as an `iTXt` chunk behind the header; a C2PA manifest is a chunk `caBX`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from flux_engine.media.marks.statement import Statement
from flux_engine.media.marks.xmp import xmp_packet

HEADER_END: Final = 8 + 25  # the signature and IHDR
XMP_KEYWORD: Final = b"XML:com.adobe.xmp\0"
UNCOMPRESSED: Final = b"\0\0\0\0"  # no compression, no language, no translated keyword
MANIFEST: Final = b"caBX"


def marked(data: bytes, statement: Statement) -> bytes:
    packet = xmp_packet(statement)
    body = b"iTXt" + XMP_KEYWORD + UNCOMPRESSED + packet
    chunk = (len(body) - 4).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    return b"".join((data[:HEADER_END], chunk, data[HEADER_END:]))


def unmarked(data: bytes) -> bytes:
    return b"".join((data[:8], *_kept(data)))


def _kept(data: bytes) -> Iterator[memoryview]:
    view, at = memoryview(data), 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        is_xmp = kind == b"iTXt" and data.startswith(XMP_KEYWORD, at + 8)
        if not is_xmp and kind != MANIFEST:
            yield view[at:end]
        at = end
