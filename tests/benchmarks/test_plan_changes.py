"""Earlier plans against those of now."""

from __future__ import annotations

import pytest

from benchmarks.plan_changes import BEFORE, STREAMED, cells_of, page
from flux_engine.cli.plan_tables import cards_by_models
from flux_engine.models.planning.anchors import ANCHORS

Cells = dict[tuple[str, str, str], str]


@pytest.fixture(name="today", scope="module")
def _today() -> Cells:
    return cells_of(["## PROFILE=balanced", *cards_by_models("balanced")])


def test_plans_that_did_not_change_are_not_shown(today: Cells) -> None:
    shown = "\n".join(page(today))
    assert "0 of 672 cells" in shown
    assert shown.count("| +") + shown.count("| -") >= len(ANCHORS)


def test_a_cell_is_shown_where_it_differs_by_more_than_a_fifth(today: Cells) -> None:
    changed = {
        ("balanced", "L4", "FLUX.1-dev"): "int8, 19 GiB, 99.9 s",
        ("balanced", "T4", "FLUX.2-dev"): "int8, 9.0 s",
    }
    shown = "\n".join(page(today | changed))
    assert "2 of 672 cells" in shown
    assert "| balanced | L4 | FLUX.1-dev | int8, 19 GiB, 99.9 s | fp8" in shown
    assert "| balanced | T4 | FLUX.2-dev | int8, 9.0 s | does not fit |" in shown


def test_every_card_of_the_review_is_quicker_and_every_earlier_estimate_has_its_run(today: Cells) -> None:
    lines = list(page(today))
    gains = [
        float(line.split(" | ")[-1].strip(" |"))
        for line in lines
        if line.startswith(tuple(f"| {one.card} | {one.model}" for one in STREAMED))
    ]
    assert len(gains) == len(STREAMED) == 9
    assert min(gains) > 3
    for (card, way), seconds in BEFORE.items():
        assert any(line.startswith(f"| {card} | {way} | {seconds:g} s |") for line in lines), (card, way)
