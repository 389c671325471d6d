"""Steps that each last a given time."""

from __future__ import annotations

import time

import pytest

from benchmarks.suite.paced import pace

STEP_S = 0.05


@pytest.mark.parametrize("computing_s", [0.0, 2 * STEP_S])
def test_a_step_lasts_at_least_its_time_and_says_what_it_found(computing_s: float) -> None:
    class Transformer:
        def forward(self, number: int, *, scale: int) -> int:
            time.sleep(computing_s)
            return number * scale

    pace(Transformer, STEP_S)
    began = time.perf_counter()
    assert Transformer().forward(3, scale=2) == 6
    assert time.perf_counter() - began >= max(STEP_S, computing_s)
