"""Estimated seconds against published runs, and their arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flux_engine.models.catalog import CATALOG, FLUX_1_DEV, FLUX_2_DEV
from flux_engine.models.planning.anchors import ANCHORS, Anchor
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.gpus import CARDS, find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.planning.seconds import cached_work, decode_flop

NAMES = [f"{anchor.card}: {anchor.describe()}, {anchor.seconds:g} s" for anchor in ANCHORS]


@pytest.mark.parametrize("anchor", ANCHORS, ids=NAMES)
def test_an_estimate_is_near_what_was_published(anchor: Anchor) -> None:
    assert anchor.estimate() == pytest.approx(anchor.seconds, rel=0.15 if anchor.is_fitted else 0.30)


def test_runs_are_held_out_as_well_as_fitted() -> None:
    held_out = [anchor for anchor in ANCHORS if not anchor.is_fitted]
    assert len(held_out) >= 10
    assert len({anchor.card for anchor in held_out}) >= 5
    assert all(anchor.source for anchor in ANCHORS)


def test_a_b200_makes_flux_2_as_much_faster_than_an_h200_as_nvidia_published() -> None:
    seconds = {}
    for name in ("H200", "B200"):
        card = find_card(name)
        assert card is not None
        seconds[name] = ModelOptimizer().plan(card, FLUX_2_DEV, Preferences(profile="quality")).seconds
    assert seconds["H200"] is not None
    assert seconds["B200"] is not None
    assert seconds["H200"] / seconds["B200"] == pytest.approx(1.7, rel=0.30)


def test_a_cell_beyond_anything_published_says_so() -> None:
    for card in CARDS:
        for model in CATALOG:
            plan = ModelOptimizer().plan(card, model)
            has_runs = any(a.model.shape == model.shape and a.offload == plan.offload for a in ANCHORS)
            assert (plan.origin is not None) == (
                has_runs and card.speed is not None and card.speed.shares.origin is not None
            )


@pytest.mark.parametrize(
    ("threshold", "work"), [(None, 1.0), (0.08, 0.69), (0.12, 0.58)], ids=["computed", "careful", "bold"]
)
def test_a_step_cache_leaves_less_work_the_bolder_it_is(threshold: float | None, work: float) -> None:
    assert cached_work(FLUX_1_DEV, threshold) == pytest.approx(work)
    assert cached_work(FLUX_2_DEV, threshold) >= cached_work(FLUX_1_DEV, threshold)  # its two lists begin with 8 each


def test_tiles_overlap_and_so_decode_some_pixels_twice() -> None:
    whole = decode_flop(FLUX_1_DEV, pixels=1024 * 1024, tile_side=1024)
    assert decode_flop(FLUX_1_DEV, pixels=1024 * 1024, tile_side=2048) == whole
    assert decode_flop(FLUX_1_DEV, pixels=1024 * 1024, tile_side=512) == pytest.approx(whole * 1.25**2)


def test_a_cold_start_is_shorter_for_whoever_comes_later_and_from_a_disk() -> None:
    for card in CARDS:
        plan = ModelOptimizer().plan(card, FLUX_1_DEV)
        first = cold_start(plan, FLUX_1_DEV, storage="volume", is_first=True)
        later = cold_start(plan, FLUX_1_DEV, storage="volume", is_first=False)
        disk = cold_start(plan, FLUX_1_DEV, storage="disk", is_first=False)
        assert disk.total < later.total <= first.total
    assert first.read == pytest.approx(112, rel=0.01)  # 33.7 GB at 0.3 GB/s
    uncompiled = replace(plan, compile=False)
    assert cold_start(uncompiled, FLUX_1_DEV, storage="disk", is_first=False).compile == 0
