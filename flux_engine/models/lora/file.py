"""The tensors of a LoRA file, read once its header is checked, as numbers that torch can multiply.

The header is checked by `inputs.lora_header`; every number must be finite. What the tensors mean is none of this
module's business: see `format`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from flux_engine.errors import InputFetchFailed, LoraInvalid
from flux_engine.inputs.lora_header import read_header
from flux_engine.inputs.safetensors_header import TensorEntry, shown

if TYPE_CHECKING:
    from torch import Tensor

FLOATS: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # kept as they are
WIDENED: Final = {  # safetensors' type: torch's, and the one that holds its numbers for multiplying
    "F8_E4M3": ("float8_e4m3fn", "bfloat16"),
    "F8_E5M2": ("float8_e5m2", "bfloat16"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", "bfloat16"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", "bfloat16"),
    "F8_E8M0": ("float8_e8m0fnu", "float32"),
    **{
        name: (f"{'u' * (name[0] == 'U')}int{name[1:]}", "float32") for name in ("U8", "I8", "U16", "I16", "U32", "I32")
    },
    "U64": ("uint64", "float32"),
    "I64": ("int64", "float32"),
}


@dataclass(frozen=True, slots=True)
class LoraFile:
    """All tensors by name on the CPU, as floats of 16 bits or more, and the file's short notes.

    `unreadable` holds the types of those that are no plain numbers: booleans, complex and packed ones.
    """

    tensors: dict[str, Tensor]
    metadata: Mapping[str, str]
    unreadable: Mapping[str, str] = field(default_factory=dict)


def read_lora_file(path: Path, *, max_bytes: int, content_hash: str | None = None) -> LoraFile:
    """Read the file once its header is checked; with `content_hash` only if that is the SHA-256 of its bytes.

    Raises LoraInvalid where the file is not safetensors, is over a limit, or holds a NaN or an infinity, and
    InputFetchFailed where it is not the file that was hashed.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise LoraInvalid(f"the LoRA has {size} bytes; this worker takes up to {max_bytes}")
        hashed = _Hashed(file)
        header = read_header(hashed, size)
        tensors: dict[str, Tensor] = {}
        unreadable: dict[str, str] = {}
        for name, entry in sorted(header.tensors.items(), key=lambda item: item[1].start):  # as they lie in the file
            data = hashed.read(entry.end - entry.start)
            if entry.dtype in FLOATS or entry.dtype in WIDENED:
                tensors[name] = _numbers(name, data, entry)
            else:
                unreadable[name] = entry.dtype
    if content_hash is not None and hashed.digest.hexdigest() != content_hash:
        raise InputFetchFailed("a LoRA was replaced while the job waited; send it again", field="loras", retryable=True)
    return LoraFile(tensors, header.metadata, unreadable)


class _Hashed:
    """A file read from its beginning to its end, hashed on the way: one copy of its bytes is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, num_bytes: int) -> bytes:
        data = self._file.read(num_bytes)
        self.digest.update(data)
        return data


def _numbers(name: str, data: bytes, entry: TensorEntry) -> Tensor:
    import torch

    stored, wanted = WIDENED.get(entry.dtype, (FLOATS.get(entry.dtype, ""),) * 2)
    if len(data) != entry.end - entry.start:
        raise LoraInvalid("the LoRA is truncated; download or export it again")
    if not data:
        return torch.zeros(entry.shape, dtype=getattr(torch, wanted))
    numbers = torch.frombuffer(bytearray(data), dtype=getattr(torch, stored)).reshape(entry.shape)
    if wanted != stored:
        numbers = numbers.to(getattr(torch, wanted))
    if not bool(torch.isfinite(numbers).all()):
        raise LoraInvalid(f"the LoRA holds a NaN or an infinity in `{shown(name)}`; export it again")
    return numbers
