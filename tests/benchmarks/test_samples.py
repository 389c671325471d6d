"""Ratios of contenders that take turns."""

from __future__ import annotations

import pytest

from benchmarks.suite.samples import Figures, alternating, ratios


async def test_a_machine_that_grows_slower_moves_no_ratio() -> None:
    """Each measurement takes a tenth longer than the one before, and every other round begins with the last."""
    turns = iter(range(100))

    async def once(name: str, _round: int) -> Figures:
        return {"ms": (2.0 if name == "ours" else 4.0) * 1.1 ** next(turns)}

    found = await alternating(("ours", "plain"), once, rounds=4)
    assert ratios(found["ms"], "ours", "plain") == [pytest.approx(0.5, rel=0.01)] * 2
