"""Hostile headers: refused in under a second, within bounded memory, with a sentence that says what is wrong."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from flux_engine.errors import ModelUnavailable
from flux_engine.models.single_file.header import read_file_header
from flux_engine.models.single_file.model_file import read_model_file
from flux_engine.units import MIB
from tests.models.single_file.files import FLUX_1, gguf, gguf_tensor, gguf_text, safetensors, with_header, written

WHOLE = safetensors(FLUX_1)
WHOLE_GGUF = gguf(FLUX_1)
MILLION = 1_000_000


def one(name: str = "a.weight", **changes: Any) -> bytes:
    entry: dict[str, Any] = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | changes
    return with_header(json.dumps({name: entry}).encode(), 64)


def many(count: int) -> bytes:
    entries = ",".join(f'"t{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in range(count))
    return with_header(f"{{{entries}}}".encode(), count)


def gguf_of(tensors: bytes, *, count: int, notes: bytes = b"", num_notes: int = 0, data: int = 4096) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, count, num_notes) + notes + tensors
    return header + bytes(-len(header) % 32 + data)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "truncated": (WHOLE[:-1], "is truncated"),
    "truncated in its header": (WHOLE[:400], "is not a safetensors file"),
    "longer": (WHOLE + bytes(1), "longer than its header says"),
    "a header of 2^63 bytes": (struct.pack("<Q", 2**63) + bytes(99), "is not a safetensors file"),
    "a header as long as the file": (struct.pack("<Q", 92) + b"{" * 92, "is not a safetensors file"),
    "nested": (with_header(b'{"a":' * 5000 + b"1" + b"}" * 5000, 0), "is not a safetensors file"),
    "overlapping": (
        with_header(
            json.dumps(
                {
                    "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                    "b": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]},
                }
            ).encode(),
            12,
        ),
        "overlap or leave gaps",
    ),
    "beyond its end": (one(data_offsets=[0, 2**40], shape=[2**38]), "is truncated"),
    "another shape than bytes": (one(shape=[4, 5]), "other bytes than its shape needs"),
    "a negative shape": (one(shape=[-4, -4]), "an impossible shape"),
    "a shape of 2^62": (one(shape=[2**62, 2**62]), "an impossible shape"),
    "no such type": (one(dtype="F7"), "safetensors does not know"),
    "GGUF truncated": (WHOLE_GGUF[: len(WHOLE_GGUF) // 2], "is truncated"),
    "GGUF truncated in its header": (WHOLE_GGUF[:300], "truncated GGUF file"),
    "GGUF of 2^63 tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), f"lists {2**63} tensors"),
    "GGUF of 2^63 notes": (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**63), f"and {2**63} notes"),
    "GGUF of a million tensors": (gguf_of(b"", count=MILLION), "lists 1000000 tensors"),
    "GGUF of version 9": (b"GGUF" + struct.pack("<IQQ", 9, 1, 1), "of version 9"),
    "GGUF with a name of 2^60 bytes": (gguf_of(struct.pack("<Q", 2**60), count=1), "a text of"),
    "GGUF with an array of 2^60 numbers": (
        gguf_of(b"", count=1, num_notes=1, notes=gguf_text("a") + struct.pack("<IIQ", 9, 4, 2**60)),
        "truncated GGUF file",
    ),
    "GGUF with an array of 2^60 texts": (
        gguf_of(b"", count=1, num_notes=1, notes=gguf_text("a") + struct.pack("<IIQ", 9, 8, 2**60)),
        "arrays in its header that are not read",
    ),
    "GGUF with arrays of arrays": (
        gguf_of(b"", count=1, num_notes=1, notes=gguf_text("a") + struct.pack("<IIQ", 9, 9, 1)),
        "arrays in its header that are not read",
    ),
    "GGUF with an alignment of 3": (
        gguf_of(b"", count=0, num_notes=1, notes=gguf_text("general.alignment") + struct.pack("<II", 4, 3)),
        "impossible alignment",
    ),
    "GGUF with a tensor of 2^80 numbers": (
        gguf_of(gguf_tensor("a", (2**40, 2**40), kind=0, start=0), count=1),
        "a shape that F32 cannot have",
    ),
    "GGUF with a tensor beyond its end": (
        gguf_of(gguf_tensor("a", (2**30,), kind=0, start=0), count=1),
        "is truncated",
    ),
    "GGUF with 40 dimensions": (gguf_of(gguf_tensor("a", (1,) * 40, kind=0, start=0), count=1), "40 dimensions"),
    "GGUF of an unknown type": (gguf_of(gguf_tensor("a", (32,), kind=99, start=0), count=1), "ggml does not know"),
    "GGUF with half a block": (
        gguf_of(gguf_tensor("a", (4, 33), kind=8, start=0), count=1),
        "a shape that Q8_0 cannot",
    ),
    "GGUF that overlaps": (
        gguf_of(gguf_tensor("a", (64,), kind=0, start=0) + gguf_tensor("b", (64,), kind=0, start=128), count=2),
        "overlap or leave gaps",
    ),
    "GGUF with a gap": (gguf_of(gguf_tensor("a", (64,), kind=0, start=1024), count=1), "overlap or leave gaps"),
    "GGUF with one name twice": (
        gguf_of(gguf_tensor("a", (64,), kind=0, start=0) + gguf_tensor("a", (64,), kind=0, start=256), count=2),
        "two tensors of one name",
    ),
    "GGUF without tensors": (gguf_of(b"", count=0), "an empty GGUF file"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_header_that_lies_is_refused_at_once(what: str, tmp_path: Path) -> None:
    content, said = HOSTILE[what]
    refused_at_once(written(tmp_path / "file", content), said, max_bytes=len(content) + 16 * MIB)


def test_a_million_tensors_are_refused_at_once(tmp_path: Path) -> None:
    content = many(MILLION)
    refused_at_once(written(tmp_path / "file", content), "lists too many tensors", max_bytes=len(content) + 16 * MIB)


def refused_at_once(path: Path, said: str, *, max_bytes: int) -> None:
    began = time.process_time()
    with pytest.raises(ModelUnavailable) as refusal:
        read_model_file(path, name="mine")
    assert time.process_time() - began < 1.0
    assert said in refusal.value.message
    tracemalloc.start()
    with pytest.raises(ModelUnavailable):
        read_model_file(path, name="mine")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < max_bytes


@pytest.mark.parametrize("content", [WHOLE, WHOLE_GGUF], ids=["safetensors", "gguf"])
def test_both_formats_tell_the_same(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "file", content)
    header = read_file_header(path, name="mine")
    assert {name: entry.shape for name, entry in header.tensors.items()} == {
        name: tuple(shape) for name, shape in FLUX_1.items()
    }
    last = max(header.tensors.values(), key=lambda entry: entry.end)
    assert len(content) - 32 < header.data_start + last.end <= len(content)
    file = read_model_file(path, name="mine")
    assert (file.family, file.config["num_attention_heads"], file.config["guidance_embeds"]) == ("FLUX.1", 4, False)
