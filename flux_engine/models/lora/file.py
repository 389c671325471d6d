"""A file that claims to be a LoRA: looked at byte by byte before anything is made of it.

Safetensors only, told by content. The header is read and checked here, without torch and without trusting a single
number in it; the tensors are read afterwards, and must be finite. What the tensors mean is none of this module's
business: see `lora_format`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from flux_engine.errors import InputFetchFailed, LoraInvalid

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES: Final = 1_000_000
MAX_TENSORS: Final = 20_000
MAX_DIMENSIONS: Final = 4
MAX_NAME_CHARACTERS: Final = 512
FLOAT_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
LENGTH_BYTES: Final = 8
OTHER_FILES: Final = (  # what people send instead, by its first bytes
    (b"PK\x03\x04", "a zip or PyTorch archive (.pt, .ckpt)"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<", "a web page"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: bytes `start` to `end` of the data that follow the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LoraFile:
    """All tensors by name, on the CPU, in the file's own float types (8-bit ones as bfloat16), and its notes."""

    tensors: dict[str, Tensor]
    metadata: Mapping[str, str]


def read_lora_file(path: Path, *, max_bytes: int, content_hash: str | None = None) -> LoraFile:
    """Read the file once its header is checked; with `content_hash` only if that is the SHA-256 of its bytes.

    Raises LoraInvalid where the file is not safetensors, is over a limit, or holds a NaN or an infinity, and
    InputFetchFailed where it is another than the one that was hashed.
    """
    header = check_header(path, max_bytes=max_bytes)
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()  # not mapped: a file that is replaced in place would change under the tensors
    if content_hash is not None and hashlib.sha256(content).hexdigest() != content_hash:
        raise InputFetchFailed("a LoRA was replaced while the job waited; send it again", field="loras", retryable=True)
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise LoraInvalid("the LoRA is not a readable safetensors file; export it again") from error
    for name, tensor in tensors.items():
        if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            tensors[name] = tensor.bfloat16()
        if not bool(torch.isfinite(tensors[name]).all()):
            raise LoraInvalid(f"the LoRA holds a NaN or an infinity in `{shown(name)}`; export it again")
    return LoraFile(tensors, header.metadata)


def check_header(path: Path, *, max_bytes: int) -> Header:
    """The file's header, once it is sure that the tensors it lists fill the file exactly.

    Raises LoraInvalid.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise LoraInvalid(f"the LoRA has {size} bytes; this worker takes up to {max_bytes}")
        head = file.read(LENGTH_BYTES)
        length = int.from_bytes(head, "little")
        if len(head) < LENGTH_BYTES or not 2 <= length <= size - LENGTH_BYTES:
            _refuse_other(head + file.read(32))
        if length > MAX_HEADER_BYTES:
            _refuse_other(head + file.read(32), f"its header has {length} bytes; up to {MAX_HEADER_BYTES} are read")
        header = file.read(length)
    parsed = _parsed(header)
    entries = _entries(parsed)
    _check_cover(entries, size - LENGTH_BYTES - length)
    return Header(entries, _metadata(parsed))


def shown(name: str) -> str:
    """A tensor's name for a message: printable and short."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 100 else clean[:97] + "..."


def _refuse_other(start: bytes, reason: str = "it is too short, or something else") -> NoReturn:
    what = next((name for magic, name in OTHER_FILES if start.startswith(magic)), None)
    problem = f"it is {what}" if what else reason
    raise LoraInvalid(f"the LoRA is not a safetensors file: {problem}")


def _parsed(header: bytes) -> Mapping[str, object]:
    try:
        parsed = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LoraInvalid("the LoRA is not a safetensors file: its header is not valid JSON") from error
    if not isinstance(parsed, dict):
        raise LoraInvalid("the LoRA is not a safetensors file: its header is not a JSON object")
    return parsed


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _entries(header: Mapping[str, object]) -> dict[str, TensorEntry]:
    names = [name for name in header if name != "__metadata__"]
    if not names:
        raise LoraInvalid("the LoRA is empty: the file holds no tensor")
    if len(names) > MAX_TENSORS:
        raise LoraInvalid(f"the LoRA has {len(names)} tensors; up to {MAX_TENSORS} are read")
    return {name: _entry(name, header[name]) for name in names}


def _metadata(header: Mapping[str, object]) -> dict[str, str]:
    notes = header.get("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise LoraInvalid("the LoRA's `__metadata__` must map names to text; export the file again")
    return notes


def _entry(name: str, raw: object) -> TensorEntry:
    if len(name) > MAX_NAME_CHARACTERS or not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise LoraInvalid(f"the LoRA's header describes `{shown(name)}` wrongly; export the file again")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in FLOAT_BYTES:
        given = shown(dtype) if isinstance(dtype, str) else "nothing"
        raise LoraInvalid(f"`{shown(name)}` of the LoRA is of type {given}; only {', '.join(FLOAT_BYTES)} are taken")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(shape) > MAX_DIMENSIONS or len(offsets) != 2:
        raise LoraInvalid(f"the LoRA's header gives `{shown(name)}` an impossible shape; export the file again")
    entry = TensorEntry(dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])
    if entry.end - entry.start != math.prod(entry.shape) * FLOAT_BYTES[dtype]:
        raise LoraInvalid(f"`{shown(name)}` of the LoRA has other bytes than its shape needs; export the file again")
    return entry


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(part) is int and 0 <= part < 2**48 for part in value)


def _check_cover(entries: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Each tensor begins where the last one ended, and the last ends with the file."""
    position = 0
    for entry in sorted(entries.values(), key=lambda e: (e.start, e.end)):
        if entry.start != position:
            raise LoraInvalid("the LoRA's tensors overlap or leave gaps; export the file again")
        position = entry.end
    if position != data_bytes:
        missing = "truncated" if position > data_bytes else "longer than its header says"
        raise LoraInvalid(f"the LoRA is {missing}; download or export it again")
