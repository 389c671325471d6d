"""Weights read ahead, counted by what the process itself is told to have read."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_engine.models.read_ahead import BLOCK_BYTES, ReadAhead


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (("text_encoder/model.safetensors", BLOCK_BYTES + 5), ("transformer/a.safetensors", 3000)):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(b"x" * size)
    (tmp_path / "model_index.json").write_text("{}")
    return tmp_path


def test_everything_is_read_once(folder: Path) -> None:
    report = ReadAhead(folder, max_bytes=1 << 30, threads=3).start().wait()
    assert report.read_bytes == report.total_bytes == BLOCK_BYTES + 3005
    assert report.seconds > 0


@pytest.mark.parametrize(
    ("max_bytes", "read"), [(0, 0), (BLOCK_BYTES, BLOCK_BYTES), (BLOCK_BYTES + 100, BLOCK_BYTES + 5)]
)
def test_no_more_is_read_than_memory_allows(folder: Path, max_bytes: int, read: int) -> None:
    assert ReadAhead(folder, max_bytes=max_bytes).start().wait().read_bytes == read


def test_a_stopped_reader_reads_no_further(folder: Path) -> None:
    reader = ReadAhead(folder, max_bytes=1 << 30, threads=1)
    reader.stop()
    assert reader.start().wait().read_bytes == 0


def test_a_file_that_is_gone_is_an_error(folder: Path) -> None:
    reader = ReadAhead(folder, max_bytes=1 << 30)
    (folder / "transformer" / "a.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        reader.start().wait()
