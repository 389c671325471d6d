"""The header of a GGUF file: notes, and for each tensor its name, type, shape and place.

Every length is checked against the file's size and a bound before it is used, so that a header which claims 2^60
tensors costs nothing. Arrays among the notes (vocabularies) are skipped.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from flux_engine.inputs.safetensors_header import (
    MAX_NAME_CHARACTERS,
    MAX_TENSORS,
    Header,
    HeaderFault,
    TensorEntry,
    shown,
)

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_NOTES: Final = 1_000
MAX_NOTE_BYTES: Final = 1_000_000
MAX_ITEMS: Final = 400_000  # of all arrays of texts: the vocabulary of a language model
MAX_DIMENSIONS: Final = 4
ALIGNMENT: Final = 32  # of tensors, unless a note says otherwise
MAX_ALIGNMENT: Final = 65_536
NUMBERS: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}  # of a note
TEXT: Final = 8
ARRAY: Final = 9


@dataclass(slots=True)
class _Cursor:
    """Reads on in a file of `size` bytes, and never past its end."""

    file: BinaryIO
    size: int
    items: int = 0

    def bytes(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size - self.file.tell() else b""
        if len(data) != count:
            raise HeaderFault("{it} is a truncated GGUF file, or its header lies; fetch it again")
        return data

    def number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))[0]
        return value

    def text(self, limit: int) -> str:
        length = self.number("Q")
        if length > limit:
            raise HeaderFault(f"{{it}} is a GGUF file with a text of {length} bytes in its header; fetch it again")
        return self.bytes(length).decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise HeaderFault("{it} is a truncated GGUF file, or its header lies; fetch it again")
        self.file.seek(count, 1)


def read_gguf_header(file: BinaryIO, size: int) -> Header:
    """The header of a GGUF file of `size` bytes; a tensor's shape is in torch's order, its type ggml's name of it.

    Raises HeaderFault.
    """
    cursor = _Cursor(file, size)
    cursor.bytes(len(MAGIC))
    version = cursor.number("I")
    if version not in VERSIONS:
        raise HeaderFault(f"{{it}} is a GGUF file of version {version}; versions 2 and 3 are read: convert it again")
    num_tensors, num_notes = cursor.number("Q"), cursor.number("Q")
    if num_tensors > MAX_TENSORS or num_notes > MAX_NOTES:
        raise HeaderFault(
            f"{{it}} is a GGUF file that lists {num_tensors} tensors and {num_notes} notes; up to {MAX_TENSORS} and "
            f"{MAX_NOTES} are read"
        )
    notes = _notes(cursor, num_notes)
    alignment = _alignment(notes)
    places = [_place(cursor) for _ in range(num_tensors)]
    data_start = -(-file.tell() // alignment) * alignment
    return Header(_tensors(places, data_bytes=size - data_start, alignment=alignment), notes, data_start)


def _notes(cursor: _Cursor, count: int) -> dict[str, str]:
    notes = {}
    for _ in range(count):
        name, kind = cursor.text(MAX_NAME_CHARACTERS), cursor.number("I")
        if kind == ARRAY:
            _skip_array(cursor)
        elif kind == TEXT:
            notes[name] = cursor.text(MAX_NOTE_BYTES)
        elif kind in NUMBERS:
            notes[name] = str(cursor.number(NUMBERS[kind]))
        else:
            raise HeaderFault(f"{{it}} is a GGUF file with a note of an unknown kind ({kind}); convert it again")
    return notes


def _skip_array(cursor: _Cursor) -> None:
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind in NUMBERS:
        cursor.skip(count * struct.calcsize(f"<{NUMBERS[kind]}"))
        return
    cursor.items += count
    if kind != TEXT or cursor.items > MAX_ITEMS:
        raise HeaderFault("{it} is a GGUF file with arrays in its header that are not read; convert it again")
    for _ in range(count):
        cursor.skip(cursor.number("Q"))


def _alignment(notes: Mapping[str, str]) -> int:
    written = notes.get("general.alignment", str(ALIGNMENT))
    alignment = int(written) if written.isdecimal() else 0
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise HeaderFault("{it} is a GGUF file with an impossible alignment; convert it again")
    return alignment


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor as the header lists it; `start` is an offset in the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


def _place(cursor: _Cursor) -> _Place:
    name, dimensions = cursor.text(MAX_NAME_CHARACTERS), cursor.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise HeaderFault(f"{{it}} is a GGUF file with {dimensions} dimensions in `{shown(name)}`; convert it again")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    return _Place(name, shape[::-1], cursor.number("I"), cursor.number("Q"))


def _tensors(places: list[_Place], *, data_bytes: int, alignment: int) -> dict[str, TensorEntry]:
    """Each tensor with its bytes, once they are known to lie in the file, one behind the other.

    Raises HeaderFault.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if not places:
        raise HeaderFault("{it} is an empty GGUF file: it holds no tensor")
    tensors: dict[str, TensorEntry] = {}
    end = 0
    for place in sorted(places, key=lambda place: place.start):
        if place.kind not in list(GGMLQuantizationType):
            raise HeaderFault(f"`{shown(place.name)}` of {{it}} has a type that ggml does not know ({place.kind})")
        kind = GGMLQuantizationType(place.kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        count = math.prod(place.shape)
        row = place.shape[-1] if place.shape else 1
        if not 0 < count < 2**48 or row % block:
            raise HeaderFault(
                f"`{shown(place.name)}` of {{it}} has a shape that {kind.name} cannot have; fetch it again"
            )
        if not end <= place.start < end + alignment or place.start % alignment:
            raise HeaderFault("{it} is a GGUF file whose tensors overlap or leave gaps; fetch it again")
        end = place.start + count // block * block_bytes
        tensors[place.name] = TensorEntry(dtype=kind.name, shape=place.shape, start=place.start, end=end)
    if end > data_bytes:
        raise HeaderFault("{it} is truncated; fetch it again")
    if len(tensors) != len(places):
        raise HeaderFault("{it} is a GGUF file with two tensors of one name; convert it again")
    return tensors
