"""The header of a model's file, safetensors or GGUF: what each tensor is and where its bytes lie.

No number in it is trusted: a header that lies, overlaps or is too long is refused before any tensor is read. A pickle
runs code when it is read, so it is refused by its first bytes, whatever it is called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from flux_engine.errors import ModelUnavailable
from flux_engine.inputs import safetensors_header
from flux_engine.inputs.safetensors_header import HeaderFault, NotSafetensors, TensorEntry
from flux_engine.models.single_file import gguf_header
from flux_engine.net.content import HEAD_BYTES, content_of

Format = Literal["safetensors", "gguf"]

CONVERT: Final = "convert it to safetensors"
OTHERS: Final = (  # where the magic bytes stand, the bytes, what it is, what to do
    (0, b"\x80\x02", "a Python pickle, which can run code", CONVERT),
    (0, b"\x80\x03", "a Python pickle, which can run code", CONVERT),
    (0, b"\x80\x04", "a Python pickle, which can run code", CONVERT),
    (0, b"\x80\x05", "a Python pickle, which can run code", CONVERT),
    (0, b"\x89HDF", "an HDF5 file", CONVERT),
    (0, b"\x93NUMPY", "a NumPy file", CONVERT),
    (0, b"TFL3", "a TensorFlow Lite model", CONVERT),
    (0, b"\x08\x07\x12", "an ONNX model", CONVERT),
    (0, b"\x89PNG", "a picture (PNG)", "name a model's file"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", "name a model's file"),
    (8, b"WEBP", "a picture (WebP)", "name a model's file"),
    (0, b"ggjt", "a file of llama.cpp from before GGUF", "fetch a GGUF file"),
)
PYTORCH: Final = "a PyTorch file (.pt, .ckpt, .bin), a pickle that can run code"
UNPACK: Final = "unpack it and name the .safetensors file in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHeader:
    """What a model's file says of itself. A tensor's type is safetensors' word for it (`BF16`) or ggml's (`Q4_K`)."""

    format: Format
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int  # where the first tensor begins, in bytes


def read_file_header(path: Path, *, name: str) -> FileHeader:
    """The header of the file at `path`, called `name` in messages.

    Raises ModelUnavailable, whose message says what the file is instead.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(HEAD_BYTES)
            file.seek(0)
            if start.startswith(gguf_header.MAGIC):
                found = gguf_header.read_gguf_header(file, size)
                return FileHeader(
                    format="gguf", tensors=found.tensors, metadata=found.metadata, data_start=found.data_start
                )
            found = safetensors_header.read_header(file, size)
    except NotSafetensors as fault:
        told = what_it_is(start, size) or f"not a safetensors file: {fault.problem}"
        raise ModelUnavailable(f"{name} is {told}") from fault
    except HeaderFault as fault:
        raise ModelUnavailable(fault.of(name)) from fault
    except OSError as error:
        raise ModelUnavailable(f"{name} cannot be read ({os.strerror(error.errno or 0)}); fetch it again") from error
    return FileHeader(format="safetensors", tensors=found.tensors, metadata=found.metadata, data_start=found.data_start)


def what_it_is(start: bytes, size: int) -> str | None:
    """What a file of `size` bytes is that begins with `start` and is neither safetensors nor GGUF, and what to do."""
    if size == 0:
        return "empty; fetch it again"
    for position, magic, what, advice in OTHERS:
        if start[position : position + len(magic)] == magic:
            return f"{what}; {advice}"
    if start.startswith(b"PK\x03\x04"):
        return f"{PYTORCH}; {CONVERT}" if b"/data.pkl" in start[:256] else f"a zip archive; {UNPACK}"
    content = content_of(start)
    if content is None:
        return "text; name a model's file" if _is_text(start) else None
    return f"{content.what}; {'fetch the file itself' if content.is_answer else 'name a model’s file'}".replace(
        "’", "'"
    )


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8-sig", "ignore" if len(start) == HEAD_BYTES else "strict")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
