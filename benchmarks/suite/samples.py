"""What was measured of several contenders in alternation: medians, spread, and ratios run by run.

A run is a few rounds, and each round takes every contender once, so that whatever disturbs the machine disturbs all.
Figures are compared within a round only; two runs show how far the ratio can be trusted.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

RUNS: Final = 2

Figures = Mapping[str, float]
Samples = dict[str, list[list[float]]]  # by contender, run and round


async def alternating(
    contenders: Sequence[str], measure: Callable[[str, int], Awaitable[Figures]], *, rounds: int, runs: int = RUNS
) -> dict[str, Samples]:
    """By figure, what `measure(contender, round)` gave; every second round begins with the last contender."""
    found: dict[str, Samples] = {}
    for run in range(runs):
        for turn in range(rounds):
            for name in contenders if turn % 2 == 0 else reversed(contenders):
                for figure, value in (await measure(name, run * rounds + turn)).items():
                    samples = found.setdefault(figure, {other: [[] for _ in range(runs)] for other in contenders})
                    samples[name][run].append(value)
    return found


def median(samples: Sequence[Sequence[float]]) -> float:
    """Of all runs."""
    return statistics.median([value for run in samples for value in run])


def spread(samples: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The least and the most of all runs."""
    values = [value for run in samples for value in run]
    return min(values), max(values)


def ratios(samples: Mapping[str, Sequence[Sequence[float]]], one: str, other: str) -> list[float]:
    """Of `one` to `other`, run by run: the median of the rounds' ratios, so that a machine that grows slower from round
    to round moves none."""
    runs = zip(samples[one], samples[other], strict=True)
    return [statistics.median(a / b for a, b in zip(ours, theirs, strict=True)) for ours, theirs in runs]


def rounded(value: Any, digits: int = 4) -> Any:
    """`value` with every number in it rounded, as it is recorded."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {key: rounded(item, digits) for key, item in value.items()}
    return [rounded(item, digits) for item in value] if isinstance(value, list | tuple) else value
