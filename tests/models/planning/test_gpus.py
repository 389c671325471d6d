"""The table of cards, found by the names that people write."""

from __future__ import annotations

import pytest

from flux_engine.models.planning.gpus import CARDS, cards_named, find_card, nearest_cards, short_name


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("a10g", ["A10G"]),
        ("A10", ["A10"]),
        ("a10", ["A10"]),
        ("4090", ["RTX 4090"]),
        ("rtx 4090", ["RTX 4090"]),
        ("RTX4090", ["RTX 4090"]),
        ("NVIDIA H100 80GB HBM3", ["H100 80GB HBM3"]),
        ("l4", ["L4"]),
        ("RTX PRO 6000", ["RTX PRO 6000 Blackwell"]),
        ("A100 40GB", ["A100-SXM4-40GB"]),
        ("a100-80gb", ["A100 80GB PCIe"]),
        ("A100", ["A100-SXM4-40GB", "A100 80GB PCIe"]),
        ("NVIDIA A100-SXM4-80GB", ["A100-SXM4-40GB", "A100 80GB PCIe"]),  # no card has all its words: any A100
        ("6000", ["RTX A6000", "RTX 6000 Ada", "RTX PRO 6000 Blackwell"]),
        ("", []),
        ("---", []),
        ("GTX 970", []),
    ],
)
def test_a_name_means_one_card_several_or_none(written: str, names: list[str]) -> None:
    assert [short_name(card) for card in cards_named(written)] == names
    found = find_card(written)
    assert (found and short_name(found)) == (names[0] if names else None)


def test_every_card_is_found_by_its_own_names() -> None:
    for card in CARDS:
        assert cards_named(card.name) == [card]
        assert cards_named(short_name(card)) == [card]


def test_a_slip_of_the_pen_finds_its_neighbours() -> None:
    assert nearest_cards("RTX 4099")[0] == "RTX 4090"
    assert nearest_cards("toaster") == []
