"""What a worker looks at before its first job, and what it says where it cannot do its work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flux_engine.build import build_checks
from flux_engine.errors import ModelUnavailable
from flux_engine.health import Unfit, fitness_checks
from flux_engine.models.served import ServedModels
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Settings


def run_checks(volume: Path, **environment: str) -> None:
    for check in build_checks(Settings.from_environment({"MODEL_VOLUME": str(volume), **environment})):
        check()


def test_the_bundled_model_needs_no_volume(tmp_path: Path) -> None:
    run_checks(tmp_path / "not attached")


def test_a_model_on_the_volume_is_found(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "my-model")
    run_checks(tmp_path, FLUX_MODEL="my-model")
    assert {path.name for path in tmp_path.iterdir()} == {"my-model"}


def test_a_model_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="fetch_models"):
        run_checks(tmp_path, FLUX_MODEL="FLUX.1-schnell")


def test_a_volume_that_is_a_file_is_unfit(tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("")
    with pytest.raises(Unfit, match="MODEL_VOLUME is a file"):
        run_checks(tmp_path / "volume")


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="a folder that root cannot write either")
def test_a_volume_that_cannot_be_written_is_unfit() -> None:
    with pytest.raises(Unfit, match="MODEL_VOLUME cannot be written"):
        run_checks(Path("/proc"))


def test_a_full_disk_is_unfit(tmp_path: Path) -> None:
    served = ServedModels(None, volume=tmp_path, has_gpu=False)
    _, has_room, _ = fitness_checks(served, volume=tmp_path, cache_folder=tmp_path, min_free_bytes=2**62)
    with pytest.raises(Unfit, match="MODEL_VOLUME has"):
        has_room()
