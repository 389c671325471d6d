"""The header of a safetensors file, read without torch and without trusting a number in it.

The header is JSON: what each tensor is and where its bytes lie, and `__metadata__`, notes of any length that trainers
leave. Tensors are few and their entries small, so those are parsed whole. Notes may fill the 100 MB that safetensors
allows; they are walked without building objects, and only the short ones are kept. Memory stays near the size of the
header, and the walk pauses often enough for other threads to run.

Non-goals: what the tensors mean, and what the file is meant to be: a `HeaderFault` leaves that word open.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from flux_engine.net.content import HEAD_BYTES

MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own limit
MAX_TENSORS: Final = 20_000
MAX_ENTRIES_BYTES: Final = 4_000_000  # of all tensors' entries
MAX_NOTES: Final = 20_000
MAX_NOTE_BYTES: Final = 1_000_000  # a longer note is about the training set
MAX_DIMENSIONS: Final = 8
MAX_NAME_CHARACTERS: Final = 512
LENGTH_BYTES: Final = 8
METADATA: Final = b'"__metadata__"'
BITS: Final = {  # of one element, for every type that safetensors has
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32},
    **{"U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}

SPACE: Final = re.compile(rb"[ \t\n\r]*+")
TEXT: Final = re.compile(rb'(?:[^"\\]++|\\.){0,10000}+', re.DOTALL)  # in portions, between which others may run
ENTRY: Final = re.compile(rb"\{[^{}]{0,2000}+\}")


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: bytes `start` to `end` of the data that follow the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself; `data_start` is where its tensors begin, in bytes."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int


class HeaderFault(Exception):
    """What is wrong with a header. `{it}` in its text stands for what the file is meant to be."""

    def of(self, it: str) -> str:
        """The text, about `it`: a noun with its article."""
        return str(self.args[0]).replace("{it}", it)


class NotSafetensors(HeaderFault):
    """The file begins with `start`, and is none for the reason `problem`."""

    def __init__(self, start: bytes, problem: str) -> None:
        super().__init__(f"{{it}} is not a safetensors file: {problem}")
        self.start = start
        self.problem = problem


class Readable(Protocol):
    """What the header is read from: a file, or bytes within an archive."""

    def read(self, num_bytes: int, /) -> bytes: ...


def read_header(file: Readable, size: int) -> Header:
    """The header of a safetensors file of `size` bytes that begins where `file` stands; reads up to its first tensor.

    Raises HeaderFault.
    """
    head = file.read(LENGTH_BYTES)
    length = int.from_bytes(head, "little")
    if len(head) < LENGTH_BYTES or not 2 <= length <= size - LENGTH_BYTES:
        raise NotSafetensors(head + file.read(HEAD_BYTES), "it is too short, or something else")
    if length > MAX_HEADER_BYTES:
        problem = f"its header has {length} bytes; up to {MAX_HEADER_BYTES} are read"
        raise NotSafetensors(head + file.read(HEAD_BYTES), problem)
    header = file.read(length)
    try:
        entries, metadata = _members(header)
        parsed = json.loads(b"{" + b",".join(entries) + b"}", object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise NotSafetensors(head + header[:HEAD_BYTES], "its header is not valid JSON") from error
    tensors = _tensors(parsed)
    _check_cover(tensors, size - LENGTH_BYTES - length)
    return Header(tensors, metadata, LENGTH_BYTES + length)


def header_with_note(file: Readable, name: str, text: str) -> bytes:
    """The beginning of a checked safetensors file, up to its first tensor, with one more note in it."""
    entries, notes = _members(file.read(int.from_bytes(file.read(LENGTH_BYTES), "little")))
    metadata = json.dumps(notes | {name: text}).encode()
    header = b"{" + b",".join([METADATA + b":" + metadata, *entries]) + b"}"
    header += b" " * (-len(header) % LENGTH_BYTES)
    return len(header).to_bytes(LENGTH_BYTES, "little") + header


def shown(name: str) -> str:
    """A tensor's name for a message: printable and short."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 100 else clean[:97] + "..."


# ------------------------------------------------------------------------------------------------ the header's JSON


def _members(header: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The source of each tensor's entry, and the notes. Raises ValueError."""
    entries: list[bytes] = []
    notes: dict[str, str] = {}
    num_bytes = 0
    position = _expected(header, 0, b"{")
    while header[position : position + 1] != b"}":
        begin, end = position, _end_of_text(header, position)
        value = _expected(header, end, b":")
        if header[begin:end] == METADATA:
            position = _notes(header, value, notes)
        else:
            match = ENTRY.match(header, value)
            if match is None:
                raise ValueError("a tensor without an entry")
            position = match.end()
            entries.append(header[begin:position])
            num_bytes += position - begin
            if len(entries) > MAX_TENSORS or num_bytes > MAX_ENTRIES_BYTES:
                raise HeaderFault(
                    f"{{it}} lists too many tensors; up to {MAX_TENSORS} in {MAX_ENTRIES_BYTES} bytes are read"
                )
        position = _next(header, position)
    if SPACE.fullmatch(header, position + 1) is None:
        raise ValueError("more than one object")
    return entries, notes


def _notes(header: bytes, position: int, notes: dict[str, str]) -> int:
    """Add the short ones of `__metadata__` to `notes`; returns where it ends."""
    if header[position : position + 1] != b"{":
        raise _bad_metadata()
    position = SPACE.match(header, position + 1).end()  # type: ignore[union-attr]  # it matches everywhere
    count = 0
    while header[position : position + 1] != b"}":
        end = _end_of_text(header, position)
        value = _expected(header, end, b":")
        if header[value : value + 1] != b'"':
            raise _bad_metadata()
        value_end = _end_of_text(header, value)
        count += 1
        if count > MAX_NOTES:
            raise HeaderFault(f"{{it}}'s `__metadata__` has more than {MAX_NOTES} notes; export the file again")
        if value_end - position <= MAX_NOTE_BYTES:
            notes[str(json.loads(header[position:end]))] = str(json.loads(header[value:value_end], strict=False))
        position = _next(header, value_end)
    return position + 1


def _bad_metadata() -> HeaderFault:
    return HeaderFault("{it}'s `__metadata__` must map names to text; export the file again")


def _expected(header: bytes, position: int, character: bytes) -> int:
    """Past blanks, `character` and more blanks."""
    position = SPACE.match(header, position).end()  # type: ignore[union-attr]  # it matches everywhere
    if header[position : position + 1] != character:
        raise ValueError("a character that JSON has not there")
    return SPACE.match(header, position + 1).end()  # type: ignore[union-attr]  # it matches everywhere


def _next(header: bytes, position: int) -> int:
    """Past a comma to the next member, or to the closing brace."""
    position = SPACE.match(header, position).end()  # type: ignore[union-attr]  # it matches everywhere
    if header[position : position + 1] == b"}":
        return position
    return _expected(header, position, b",")


def _end_of_text(header: bytes, position: int) -> int:
    """Where the JSON string that begins at `position` ends."""
    if header[position : position + 1] != b'"':
        raise ValueError("no string where one belongs")
    position += 1
    while True:
        end = TEXT.match(header, position).end()  # type: ignore[union-attr]  # it matches everywhere
        if header[end : end + 1] == b'"':
            return end + 1
        if end == position:
            raise ValueError("a string without an end")
        position = end


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


# ---------------------------------------------------------------------------------------------------------- tensors


def _tensors(parsed: Mapping[str, object]) -> dict[str, TensorEntry]:
    if not parsed:
        raise HeaderFault("{it} is empty: the file holds no tensor")
    return {name: _entry(name, raw) for name, raw in parsed.items()}


def _entry(name: str, raw: object) -> TensorEntry:
    if len(name) > MAX_NAME_CHARACTERS or not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise HeaderFault(f"{{it}}'s header describes `{shown(name)}` wrongly; export the file again")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        given = f"the type {shown(dtype)}" if isinstance(dtype, str) else "no type"
        raise HeaderFault(f"`{shown(name)}` of {{it}} has {given}, which safetensors does not know; export it again")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
        raise HeaderFault(f"{{it}}'s header gives `{shown(name)}` an impossible shape; export the file again")
    entry = TensorEntry(dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])
    if (entry.end - entry.start) * 8 != math.prod(entry.shape) * BITS[dtype]:
        raise HeaderFault(f"`{shown(name)}` of {{it}} has other bytes than its shape needs; export the file again")
    return entry


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(part) is int and 0 <= part < 2**48 for part in value)


def _check_cover(tensors: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Each tensor begins where the last one ended, and the last ends with the file."""
    position = 0
    for entry in sorted(tensors.values(), key=lambda e: (e.start, e.end)):
        if entry.start != position:
            raise HeaderFault("{it}'s tensors overlap or leave gaps; export the file again")
        position = entry.end
    if position != data_bytes:
        fault = "truncated" if position > data_bytes else "longer than its header says"
        raise HeaderFault(f"{{it}} is {fault}; download or export it again")
