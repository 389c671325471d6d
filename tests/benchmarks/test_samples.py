"""Ratios of contenders that take turns."""

from __future__ import annotations

import pytest

from benchmarks.suite.samples import Figures, alternating, ratios


async def test_a_machine_that_grows_slower_moves_no_ratio() -> None:
    """Each round takes twice as long as the one before, and one measurement of three is disturbed."""

    async def once(name: str, turn: int) -> Figures:
        disturbed = 1.5 if name == "ours" and turn % 3 == 1 else 1.0
        return {"ms": (2.0 if name == "ours" else 4.0) * 2.0**turn * disturbed}

    found = await alternating(("ours", "plain"), once, rounds=3)
    assert ratios(found["ms"], "ours", "plain") == [pytest.approx(0.5)] * 2
