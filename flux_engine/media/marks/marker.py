"""How files are marked, as PROVENANCE asks for it.

    stamp = Stamp(marker, statement)
    data = stamp.on(encode_image(...), "png")

`Marker` has two implementations here, for `off` and `marks`, and one in manifest.py. Marking takes milliseconds and may
run on any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from flux_engine.job.formats import ImageFormat, VideoFormat
from flux_engine.media.marks.carriers import CARRIERS
from flux_engine.media.marks.statement import Statement
from flux_engine.media.marks.xmp import xmp_packet

UNMARKED: Final = "off"  # the `id` of files that carry no marks


class Marker(Protocol):
    """One way to mark files."""

    @property
    def id(self) -> str:
        """A short name, another one wherever the same statement gives other marks; kept with what is stored."""
        ...

    def marked(self, data: bytes, output_format: ImageFormat | VideoFormat, statement: Statement) -> bytes:
        """`data`, a file without marks, with them."""
        ...

    def notes(self, output_format: ImageFormat | VideoFormat) -> tuple[str, ...]:
        """What a client has to know of marks in this format."""
        ...


class Unmarked:
    """Files as they are encoded."""

    id: Final = UNMARKED

    def marked(self, data: bytes, output_format: ImageFormat | VideoFormat, statement: Statement) -> bytes:
        return data

    def notes(self, output_format: ImageFormat | VideoFormat) -> tuple[str, ...]:
        return ()


class Marks:
    """IPTC's DigitalSourceType and the model in XMP, and in a WebM's tags."""

    id: Final = "marks-1"

    def marked(self, data: bytes, output_format: ImageFormat | VideoFormat, statement: Statement) -> bytes:
        return CARRIERS[output_format].marked(data, statement)

    def notes(self, output_format: ImageFormat | VideoFormat) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the files of one job are marked with."""

    marker: Marker
    statement: Statement

    def on(self, data: bytes, output_format: ImageFormat | VideoFormat) -> bytes:
        """`data`, a file without marks, with those of its job."""
        return self.marker.marked(data, output_format, self.statement)

    def preview_xmp(self) -> bytes:
        """The XMP of a preview, which is as synthetic as what it shows; empty where files carry none."""
        return b"" if self.marker.id == UNMARKED else xmp_packet(self.statement)

    def again(self, data: bytes, output_format: ImageFormat | VideoFormat) -> bytes:
        """`data`, a file with whatever marks of ours, with those of its job alone."""
        return self.on(CARRIERS[output_format].unmarked(data), output_format)


UNMARKED_FILES: Final = Unmarked()
NO_STAMP: Final = Stamp(UNMARKED_FILES, Statement(model="", revision="", is_composite=False))
