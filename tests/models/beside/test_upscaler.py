"""Upscalers of a real architecture, small and random: found on a volume, loaded, run in tiles."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from flux_engine.errors import ModelUnavailable
from flux_engine.inputs.upscalers import Upscalers, factor_of
from flux_engine.models.beside.upscaler import import_spandrel, load_upscaler

PICTURE = Image.effect_noise((80, 56), 60).convert("RGB")


def weights(scale: int) -> dict[str, Any]:
    """ESRGAN with one block of few filters."""
    import_spandrel()
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    torch.manual_seed(scale)
    return dict(RRDBNet(num_filters=8, num_blocks=1, scale=scale).state_dict())


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("4x-UltraSharp.pth", 4),
        ("RealESRGAN_x4plus.pth", 4),
        ("RealESRGAN_x2.pth", 2),
        ("2x_NMKD.safetensors", 2),
        ("8x_NMKD.pth", 8),
        ("SwinIR.pth", None),
        ("net_g_64x64.pth", None),
    ],
)
def test_a_name_tells_the_factor(name: str, factor: int | None) -> None:
    assert factor_of(name) == factor


def test_the_one_that_fits_is_found(tmp_path: Path) -> None:
    names = ("any.pth", "b4x.safetensors", "a-x2.pth", "8x.pth", ".4x.pth", "4x.txt")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    upscalers = Upscalers(tmp_path)
    by_2, by_4 = upscalers.find(2), upscalers.find(4)
    assert by_2 is not None
    assert by_4 is not None
    assert (by_2.path.name, by_4.path.name) == ("a-x2.pth", "b4x.safetensors")
    assert by_2.sha256 != by_4.sha256
    assert upscalers.names() == ["8x.pth", "a-x2.pth", "any.pth", "b4x.safetensors"]
    assert Upscalers(tmp_path / "missing").find(2) is None


@pytest.mark.parametrize(("scale", "factor"), [(2, 2), (4, 4), (4, 2), (2, 4), (8, 2)])
def test_a_picture_is_enlarged_to_the_factor_asked_for(tmp_path: Path, scale: int, factor: int) -> None:
    save_file(weights(scale), tmp_path / "net.safetensors")
    loaded = load_upscaler(tmp_path / "net.safetensors", device="cpu")
    assert loaded.scale == scale
    assert loaded.enlarged(PICTURE, factor, max_bytes=10**9).size == (80 * factor, 56 * factor)


@pytest.mark.parametrize(("scale", "factor"), [(4, 2), (8, 4), (2, 4)])
def test_no_whole_picture_is_larger_than_the_result(tmp_path: Path, scale: int, factor: int) -> None:
    """numpy's memory is traced: that of whole pictures. A picture of the network's own factor would take four times
    as much."""
    save_file(weights(scale), tmp_path / "net.safetensors")
    loaded = load_upscaler(tmp_path / "net.safetensors", device="cpu")
    loaded.enlarged(PICTURE, factor, max_bytes=10**8)  # libraries are imported by now
    picture = Image.effect_noise((128, 96), 60).convert("RGB")
    tracemalloc.start()
    larger = loaded.enlarged(picture, factor, max_bytes=10**8)  # in tiles, of 34 to 139 pixels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert larger.size == (128 * factor, 96 * factor)
    assert peak < 24 * larger.width * larger.height + 2**20, peak / (larger.width * larger.height)


def test_a_tile_scaled_down_is_the_whole_scaled_down(tmp_path: Path) -> None:
    save_file(weights(4), tmp_path / "net.safetensors")
    loaded = load_upscaler(tmp_path / "net.safetensors", device="cpu")
    whole = loaded.enlarged(PICTURE, 4, max_bytes=10**10).resize((160, 112), Image.Resampling.LANCZOS)
    tiled = loaded.enlarged(PICTURE, 2, max_bytes=1)
    assert np.abs(np.asarray(whole).astype(int) - np.asarray(tiled)).mean() < 0.6


def test_tiles_show_no_seam(tmp_path: Path) -> None:
    torch.save(weights(2), tmp_path / "net.pth")
    loaded = load_upscaler(tmp_path / "net.pth", device="cpu")
    large = PICTURE.resize((160, 100))
    whole, tiled = (np.asarray(loaded.enlarged(large, 2, max_bytes=room)).astype(int) for room in (10**10, 1))
    assert np.abs(whole - tiled).max() <= 12  # of a network that sees less than the tiles overlap
    assert np.abs(whole - tiled).mean() < 0.5


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x80\x04K\x01."])
@pytest.mark.parametrize("name", ["4x.pth", "4x.safetensors"])
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelUnavailable, match="cannot be loaded") as refusal:
        load_upscaler(tmp_path / name, device="cpu")
    assert str(tmp_path) not in refusal.value.message


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"weight": Trap()}, tmp_path / "4x.pth")
    with pytest.raises(ModelUnavailable):
        load_upscaler(tmp_path / "4x.pth", device="cpu")
    assert not (tmp_path / "sprung").exists()
