"""Loading by a plan: quantised checkpoints made once, and the ladder when memory runs out."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from flux_engine.errors import OutOfMemory
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.loading import Source, folder_to_read, leaner, load_tuned
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.tuning.quantisation import save_checkpoint
from flux_engine.units import GIB
from tests.models.tiny_flux import paint, psnr, save_random_flux

CPU = cpu_machine(total_bytes=16 * GIB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_flux(tmp_path_factory.mktemp("flux"))


def test_the_first_worker_makes_the_quantised_checkpoint_and_the_second_loads_it(folder: Path, tmp_path: Path) -> None:
    source = Source(folder=folder, revision="1", volume=tmp_path)
    plan = ModelOptimizer().plan(CPU, FLUX_TINY, Preferences(profile="memory"))
    assert folder_to_read(FLUX_TINY, source, plan) == folder
    first = load_tuned(FLUX_TINY, source, plan, device="cpu")
    assert folder_to_read(FLUX_TINY, source, plan) == first.checkpoint
    second = load_tuned(FLUX_TINY, source, plan, device="cpu")

    assert (first.is_from_checkpoint, second.is_from_checkpoint) == (False, True)
    assert first.applied == second.applied
    assert psnr(paint(first.pipeline), paint(second.pipeline)) == float("inf")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_checkpoint_that_cannot_be_read_is_made_again(folder: Path, tmp_path: Path, is_there: bool) -> None:
    source = Source(folder=folder, revision="1", volume=tmp_path)
    plan = ModelOptimizer().plan(CPU, FLUX_TINY, Preferences(profile="memory"))
    first = load_tuned(FLUX_TINY, source, plan, device="cpu")
    assert first.checkpoint is not None
    if is_there:
        weights = next((first.checkpoint / "transformer").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        shutil.rmtree(first.checkpoint / "transformer")

    mended = load_tuned(FLUX_TINY, source, plan, device="cpu")
    assert not mended.is_from_checkpoint
    assert psnr(paint(first.pipeline), paint(mended.pipeline)) == float("inf")
    assert load_tuned(FLUX_TINY, source, plan, device="cpu").is_from_checkpoint


def test_workers_that_quantise_at_the_same_time_leave_one_whole_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Each in a container of its own, where both have the same process id."""
    plan = ModelOptimizer().plan(CPU, FLUX_TINY, Preferences(profile="memory"))
    tuned = load_tuned(FLUX_TINY, Source(folder=folder, revision="1"), plan, device="cpu")
    target = tmp_path / "quantised" / "made"
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: save_checkpoint(tuned.pipeline, target), range(8)))
    alone = tmp_path / "alone"
    save_checkpoint(tuned.pipeline, alone)
    assert [path.name for path in target.parent.iterdir()] == ["made"]
    assert files_of(target) == files_of(alone)


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_a_volume_that_takes_no_checkpoint_costs_no_picture(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "quantised").write_text("in the way")
    plan = ModelOptimizer().plan(CPU, FLUX_TINY, Preferences(profile="memory"))
    tuned = load_tuned(FLUX_TINY, Source(folder=folder, revision="1", volume=tmp_path), plan, device="cpu")
    assert tuned.checkpoint is None
    assert tuned.applied.is_quantised


def test_a_plain_plan_writes_nothing_to_the_volume(folder: Path, tmp_path: Path) -> None:
    plan = ModelOptimizer().plan(CPU, FLUX_TINY)
    tuned = load_tuned(FLUX_TINY, Source(folder=folder, revision="1", volume=tmp_path), plan, device="cpu")
    assert not tuned.is_from_checkpoint
    assert list(tmp_path.iterdir()) == []


def test_the_ladder_leads_to_leaner_plans_and_ends(folder: Path) -> None:
    plan = ModelOptimizer().plan(CPU, FLUX_TINY)
    tuned = load_tuned(FLUX_TINY, Source(folder=folder, revision="1"), plan, device="cpu")
    below = leaner(tuned.applied.plan)
    assert below.peak_bytes < plan.peak_bytes

    with pytest.raises(OutOfMemory, match="smaller picture"):
        leaner(replace(plan, next_leaner=None))
