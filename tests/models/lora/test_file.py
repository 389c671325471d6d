"""Tensors of every type that safetensors has, read as numbers or named."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flux_engine.errors import LoraInvalid
from flux_engine.models.lora.file import read_lora_file
from tests.models.tiny import save

NUMBERS = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_numbers_of_every_type_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([[0.0, 1.0, 2.0], [4.0, 8.0, 16.0]])
    tensors = {"a": values.to(dtype), "empty": torch.zeros(0, 3).to(dtype), "one": torch.tensor(2.0).to(dtype)}
    file = read_lora_file(save(tensors, tmp_path / "x.safetensors"), max_bytes=10_000)
    assert torch.equal(file.tensors["a"].float(), values)
    assert file.tensors["a"].dtype.is_floating_point
    assert file.tensors["a"].dtype.itemsize >= 2
    assert file.tensors["one"].shape == ()
    assert file.tensors["empty"].shape == (0, 3)
    assert file.unreadable == {}


def test_numbers_that_are_exponents_alone_are_read(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [3], "data_offsets": [0, 3]}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes([126, 127, 128]))
    assert read_lora_file(tmp_path / "x", max_bytes=1000).tensors["a"].tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(("dtype", "shape", "num_bytes"), [("F4", [2, 2], 2), ("F6_E2M3", [4], 3), ("BOOL", [3], 3)])
def test_what_holds_no_plain_numbers_is_listed(dtype: str, shape: list[int], num_bytes: int, tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, num_bytes]}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(num_bytes))
    file = read_lora_file(tmp_path / "x", max_bytes=1000)
    assert (file.tensors, file.unreadable) == ({}, {"a": dtype})


def test_tensors_that_lie_at_odd_places_are_read(tmp_path: Path) -> None:
    entries = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "float": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    header = json.dumps(entries).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + b"\7" + struct.pack("<2f", 1.5, -2))
    file = read_lora_file(tmp_path / "x", max_bytes=1000)
    assert file.tensors["float"].tolist() == [1.5, -2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_what_is_not_finite_is_refused(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    path = save({"a": torch.tensor([1.0, value]).to(dtype)}, tmp_path / "x.safetensors")
    with pytest.raises(LoraInvalid, match="a NaN or an infinity in `a`"):
        read_lora_file(path, max_bytes=1000)


MEASURE = """
import sys
from pathlib import Path
import torch
from flux_engine.models.lora.file import read_lora_file

def peak():  # of this program: ru_maxrss begins with the peak of whoever started it
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

before = peak()
file = read_lora_file(Path(sys.argv[1]), max_bytes=10**9)
print(peak() - before)
"""


def test_memory_holds_a_file_little_more_than_once(tmp_path: Path) -> None:
    megabytes = 96
    path = save({f"t{i}": torch.zeros(2**18) for i in range(megabytes)}, tmp_path / "x.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 0 < int(done.stdout) < megabytes * 1024 * 1.5
