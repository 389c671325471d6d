"""Every process of the system killed at random moments; benchmarks/gateway_chaos.py does it at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.chaos.storm import Storm


@pytest.mark.slow
async def test_no_task_is_lost_charged_twice_or_made_twice(tmp_path: Path) -> None:
    outcome = await Storm(tmp_path, tasks=30, kills=5, seed=3, every_s=(0.2, 1.0)).run()
    assert outcome.faults == []
    assert sum(outcome.kills.values()) == 5
