"""Weights read ahead: the files that are loaded, in their order, as far as memory allows."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from flux_engine.models.catalog import FLUX_1_DEV
from flux_engine.models.loading import Source, files_to_read
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.read_ahead import BLOCK_BYTES, RESERVE_BYTES, ReadAhead, WeightFiles, weight_files
from flux_engine.units import GIB, MIB


def write(path: Path, size: int) -> Path:
    """A sparse file of that size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


def room(blocks: float) -> int:
    return RESERVE_BYTES + int(blocks * BLOCK_BYTES)


@pytest.fixture
def files(tmp_path: Path) -> list[WeightFiles]:
    write(tmp_path / "text_encoder" / "model.safetensors", BLOCK_BYTES + 5)
    write(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors", 3000)
    return [weight_files(tmp_path, "text_encoder"), weight_files(tmp_path, "transformer")]


def test_everything_is_read_once(files: Sequence[WeightFiles]) -> None:
    report = ReadAhead(files, free_bytes=lambda: room(100), threads=3).start().wait()
    assert report.read_bytes == report.total_bytes == BLOCK_BYTES + 3005
    assert report.seconds > 0


def test_reading_waits_for_memory_and_goes_on_as_the_loader_consumes(tmp_path: Path) -> None:
    names = ("text_encoder", "transformer", "vae")
    for name in names:
        write(tmp_path / name / "model.safetensors", 2 * BLOCK_BYTES)
    looked = threading.Semaphore(0)

    def free_bytes() -> int:
        looked.release()
        return room(2)

    reader = ReadAhead([weight_files(tmp_path, name) for name in names], free_bytes=free_bytes, threads=1).start()
    for _ in range(3):
        looked.acquire()  # two blocks, and a third that has to wait
    reader.consumed("text_encoder")
    for _ in range(3):
        looked.acquire()
    reader.consumed("transformer")
    assert reader.wait().read_bytes == 6 * BLOCK_BYTES


def test_what_the_loader_has_overtaken_is_not_read(tmp_path: Path) -> None:
    for name in ("text_encoder", "vae"):
        write(tmp_path / name / "model.safetensors", 2 * BLOCK_BYTES)
    reader = ReadAhead([weight_files(tmp_path, name) for name in ("text_encoder", "vae")], free_bytes=lambda: room(9))
    reader.consumed("text_encoder")
    assert reader.start().wait().read_bytes == 2 * BLOCK_BYTES


def test_a_reader_without_memory_waits_until_it_is_stopped(files: Sequence[WeightFiles]) -> None:
    reader = ReadAhead(files, free_bytes=lambda: room(0.5)).start()
    reader.stop()
    assert reader.wait().read_bytes == 0


def test_a_file_that_is_gone_is_an_error(tmp_path: Path, files: Sequence[WeightFiles]) -> None:
    reader = ReadAhead(files, free_bytes=lambda: room(9))
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        reader.start().wait()


def cached_repository(folder: Path) -> Path:
    """FLUX.1-dev as RunPod's cache of Hugging Face models holds it, all files of the repository, in a thousandth of its
    size."""
    write(folder / "flux1-dev.safetensors", 23_800_000)
    write(folder / "ae.safetensors", 335_000)
    shards = [f"diffusion_pytorch_model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for shard, size in zip(shards, (9_980_000, 9_950_000, 3_870_000), strict=True):
        write(folder / "transformer" / shard, size)
    weight_map = {f"layer.{i}": shard for i, shard in enumerate(shards)}
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    write(folder / "text_encoder" / "model.safetensors", 246_000)
    halves = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for half, size in zip(halves, (4_990_000, 4_530_000), strict=True):
        write(folder / "text_encoder_2" / half, size)
    (folder / "text_encoder_2" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": halves[0], "b": halves[1]}})
    )
    write(folder / "text_encoder_2" / "model.fp16.safetensors", 9_520_000)  # a variant that nobody asks for
    write(folder / "vae" / "diffusion_pytorch_model.safetensors", 168_000)
    return folder


def test_nothing_is_read_that_is_never_loaded(tmp_path: Path) -> None:
    folder = cached_repository(tmp_path / "snapshots" / "abc")
    gpu = find_card("H200")
    assert gpu is not None
    plan = ModelOptimizer().plan(gpu, FLUX_1_DEV, Preferences(profile="quality"))
    files = files_to_read(FLUX_1_DEV, Source(folder=folder, revision="abc"), plan)
    loaded = {path for one in files for path in one.paths}
    never = set(folder.rglob("*.safetensors")) - loaded
    assert {path.name for path in never} == {"flux1-dev.safetensors", "ae.safetensors", "model.fp16.safetensors"}

    report = ReadAhead(files, free_bytes=lambda: 4 * GIB).start().wait()
    assert report.read_bytes == report.total_bytes == sum(path.stat().st_size for path in loaded)
    assert report.read_bytes == pytest.approx(33.7 * MIB, rel=0.05)
    assert [one.component for one in files] == ["text_encoder_2", "text_encoder", "transformer", "vae"]


@pytest.mark.parametrize("written", ["", "{}", '{"weight_map": []}'])
def test_an_index_that_cannot_be_read_is_left_to_loading(tmp_path: Path, written: str) -> None:
    place = tmp_path / "transformer"
    place.mkdir()
    (place / "diffusion_pytorch_model.safetensors.index.json").write_text(written)
    assert weight_files(tmp_path, "transformer").paths == ()
    assert weight_files(tmp_path, "vae").paths == ()
