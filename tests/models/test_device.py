"""Which device a worker finds itself on."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_engine.models.device import has_gpu, parse_driver
from flux_engine.models.gpu_properties import GIB, MIB


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
