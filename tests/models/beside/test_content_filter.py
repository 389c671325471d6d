"""What CONTENT_FILTER may name, and which labels are forbidden, told from the classifier's description."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flux_engine.models.beside.content_filter import find_filter
from flux_engine.settings import SettingsError


def described(
    folder: Path, *labels: str, files: tuple[str, ...] = ("model.safetensors", "preprocessor_config.json")
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    for name in files:
        (folder / name).write_bytes(b"{}")


@pytest.mark.parametrize(
    ("labels", "named", "forbidden"),
    [
        (("normal", "nsfw"), (), ("nsfw",)),
        (("drawings", "hentai", "neutral", "porn", "sexy"), (), ("hentai", "porn", "sexy")),
        (("SFW", "Night"), (), ("night",)),
        (("cat", "porn"), (), ("porn",)),
        (("day", "night"), ("night",), ("night",)),
        (("normal", "nsfw"), ("normal",), ("normal",)),
    ],
)
def test_forbidden_labels(
    tmp_path: Path, labels: tuple[str, ...], named: tuple[str, ...], forbidden: tuple[str, ...]
) -> None:
    described(tmp_path / "models" / "someone--filter", *labels)
    assert find_filter("someone/filter", volume=tmp_path, threshold=0.5, labels=named).labels == forbidden


@pytest.mark.parametrize(
    ("labels", "named", "files", "says"),
    [
        (("day", "night"), (), ("model.safetensors", "preprocessor_config.json"), "must name which"),
        (("day", "night"), ("dusk",), ("model.safetensors", "preprocessor_config.json"), "correct dusk"),
        (("normal", "nsfw"), (), ("pytorch_model.bin", "preprocessor_config.json"), "lacks"),
        (("normal", "nsfw"), (), ("model.safetensors",), "lacks"),
    ],
)
def test_what_cannot_be_used_stops_the_worker(
    tmp_path: Path, labels: tuple[str, ...], named: tuple[str, ...], files: tuple[str, ...], says: str
) -> None:
    described(tmp_path / "filter", *labels, files=files)
    with pytest.raises(SettingsError, match=says) as refused:
        find_filter("filter", volume=tmp_path, threshold=0.5, labels=named)
    assert str(refused.value).startswith("CONTENT_FILTER")


def test_one_that_is_not_there_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fetch_models"):
        find_filter("someone/filter", volume=tmp_path, threshold=0.5, labels=())


def test_other_settings_are_another_filter(tmp_path: Path) -> None:
    """So that no result of one is a hit for the other."""
    described(tmp_path / "filter", "normal", "nsfw")
    asked = [(0.5, ()), (0.6, ()), (0.5, ("normal",)), (0.5, ("nsfw", "normal"))]
    made = [
        find_filter("filter", volume=tmp_path, threshold=threshold, labels=labels).id for threshold, labels in asked
    ]
    assert len(set(made)) == len(asked)
    assert made[0] == find_filter("filter", volume=tmp_path, threshold=0.5, labels=("nsfw",)).id
