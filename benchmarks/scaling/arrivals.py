"""When jobs come: at random about a mean, with a minute in ten at five times as many as in the others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

BURST_EVERY_S: Final = 600.0
BURST_S: Final = 60.0
BURST_FACTOR: Final = 5.0


def arrivals(per_minute: float, *, for_s: float, chance: random.Random) -> Iterator[float]:
    """Seconds from the beginning, in order; over whole periods `per_minute` is their mean."""
    quiet = per_minute / 60 * BURST_EVERY_S / (BURST_EVERY_S + (BURST_FACTOR - 1) * BURST_S)
    now = 0.0
    while True:
        in_burst = now % BURST_EVERY_S >= BURST_EVERY_S - BURST_S
        now += chance.expovariate(quiet * (BURST_FACTOR if in_burst else 1.0))
        if now >= for_s:
            return
        yield now
