"""Where weights are found, and by which revision they are known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux_engine.errors import ModelUnavailable
from flux_engine.models.weights import find_weights, revision_of
from flux_engine.units import MIB

ID = "owner/name"


def make_model(folder: Path) -> Path:
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (folder / "transformer" / "weights.safetensors").write_bytes(os.urandom(4 * MIB))
    return folder


@pytest.mark.parametrize(
    "place",
    [
        "models/owner--name",
        "models/owner/name",
        "owner/name",
        "huggingface-cache/hub/models--owner--name/snapshots/0123456789abcdef",
        "hub/models--owner--name/snapshots/0123456789abcdef",
    ],
)
def test_a_model_is_found_in_every_layout_of_a_volume(tmp_path: Path, place: str) -> None:
    make_model(tmp_path / place)
    found = find_weights(ID, tmp_path)
    assert found.folder == tmp_path / place
    assert (found.revision == "0123456789abcdef") is ("snapshots" in place)


def test_the_snapshot_that_main_names_comes_first(tmp_path: Path) -> None:
    cached = tmp_path / "huggingface-cache" / "hub" / "models--owner--name"
    for commit in ("aaaa", "bbbb"):
        make_model(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("bbbb\n")
    assert find_weights(ID, tmp_path).revision == "bbbb"


def test_a_missing_model_says_how_to_put_it_there_and_names_no_path(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="fetch_models") as refused:
        find_weights(ID, tmp_path)
    assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize("at", [0, 0.13, 0.5, 0.77, 1])
def test_weights_that_are_replaced_are_another_revision(tmp_path: Path, at: float) -> None:
    """As a merged LoRA replaces them: the same names and sizes, other values in every block."""
    file = make_model(tmp_path / "model") / "transformer" / "weights.safetensors"
    before = revision_of(tmp_path / "model")
    assert revision_of(tmp_path / "model") == before
    content = bytearray(file.read_bytes())
    block = len(content) // 8
    start = int((len(content) - block) * at)
    content[start : start + block] = os.urandom(block)
    file.write_bytes(content)
    assert revision_of(tmp_path / "model") != before
