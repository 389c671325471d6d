"""Which device a worker finds itself on."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_engine.errors import DeviceBroken
from flux_engine.models.planning.device import has_gpu, parse_driver, read_device
from flux_engine.units import GIB, MIB


@pytest.mark.parametrize(
    ("devices", "hidden", "is_there"),
    [
        (["nvidia0", "nvidiactl", "nvidia-uvm"], None, True),
        (["nvidia3", "nvidiactl", "nvidia-uvm"], None, True),  # the fourth card of its host
        (["nvidiactl", "nvidia-uvm", "null"], None, False),
        ([], None, False),
        (["nvidia0"], "", False),
        (["nvidia0"], "-1", False),
        (["nvidia0"], "0", True),
    ],
)
def test_a_gpu_is_told_by_its_device_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[str], hidden: str | None, is_there: bool
) -> None:
    for name in devices:
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert has_gpu(tmp_path) is is_there


def test_the_driver_tells_the_card_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = parse_driver("NVIDIA H100 80GB HBM3, 9.0, 81559, 81078, Disabled\n", host_bytes=100 * GIB)
    assert gpu is not None
    assert (gpu.compute_capability, gpu.count, gpu.host_bytes) == ((9, 0), 1, 100 * GIB)
    assert gpu.total_bytes == 81559 * MIB
    assert gpu.free_bytes < 81078 * MIB
    assert gpu.speed is not None


@pytest.mark.parametrize(
    "told",
    ["", "no devices were found", "NVIDIA A100, 8.0, 81920, 81000, Enabled", "NVIDIA X, 9.0, [N/A], [N/A], Disabled"],
)
def test_what_the_driver_does_not_tell_is_left_to_torch(told: str) -> None:
    assert parse_driver(told, host_bytes=GIB) is None


def test_one_card_of_several_is_one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "NVIDIA L4, 8.9, 23034, 22574, Disabled\n" * 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    one = parse_driver(lines, host_bytes=GIB)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    four = parse_driver(lines, host_bytes=GIB)
    assert one is not None
    assert four is not None
    assert (one.count, four.count) == (1, 4)


def test_a_card_that_neither_the_driver_nor_torch_can_tell_is_no_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert read_device(tmp_path).is_cpu
    (tmp_path / "nvidia0").touch()
    with pytest.raises(DeviceBroken, match="another worker"):
        read_device(tmp_path)
