"""Which module puts marks into which format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from flux_engine.job.formats import ImageFormat, VideoFormat
from flux_engine.media.marks import gif, jpeg, mp4, png, webm, webp
from flux_engine.media.marks.statement import Statement


class Carrier(Protocol):
    """Marks in the files that this worker writes, of one format; the pictures in them are copied as they are."""

    def marked(self, data: bytes, statement: Statement) -> bytes:
        """`data`, a file without marks, that says `statement`."""
        ...

    def unmarked(self, data: bytes) -> bytes:
        """`data` without its statement and without its C2PA manifest."""
        ...


CARRIERS: Final[Mapping[ImageFormat | VideoFormat, Carrier]] = {
    "png": png,
    "jpg": jpeg,
    "webp": webp,
    "gif": gif,
    "mp4": mp4,
    "webm": webm,
}
