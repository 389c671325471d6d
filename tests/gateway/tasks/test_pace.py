"""How often tasks are looked at: soon while few are in flight, and never more often in all than the queue takes."""

from __future__ import annotations

import pytest

from flux_engine.gateway.tasks.pace import Pace


@pytest.mark.parametrize(
    ("in_flight", "again_s"), [(0, 0.3), (1, 0.3), (10, 0.3), (45, 1.0), (90, 2.0), (450, 10.0), (10_000, 15.0)]
)
def test_seconds_until_the_next_look(in_flight: int, again_s: float) -> None:
    assert Pace().between(in_flight) == pytest.approx(again_s)
