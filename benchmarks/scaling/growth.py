"""What follows for so many jobs a minute, with a burst of five times as many in the first half minute of every five.

Two fleets, by benchmarks/simulation.py: workers by the second, which come and go with the queue; and cards of one's
own, the fewest with which 95 of 100 jobs have their result within `WITHIN_S` beyond their own time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from benchmarks.scaling.measured import RESULT_MB, Costs
from benchmarks.simulation import Fleet, Load, Outcome, WorkerKind, simulate

BURST: Final = 5.0
BURST_EVERY_MIN: Final = 5.0
LEAST_JOBS: Final = 500
WITHIN_S: Final = 10.0
MONTH_MIN: Final = 30 * 1_440
PLANNED_SHARE: Final = 0.7  # of a part, that one plans with


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    hour: float  # of a worker by the second
    month: float  # of a card of one's own


def load_of(per_minute: float) -> Load:
    periods = max(1, math.ceil(LEAST_JOBS / per_minute / BURST_EVERY_MIN))
    minutes = periods * BURST_EVERY_MIN
    return Load(jobs_per_minute=per_minute, minutes=minutes, burst=BURST, burst_every_s=BURST_EVERY_MIN * 60)


def rented(kind: WorkerKind, per_minute: float, *, price: float) -> Outcome:
    """Active workers carry the mean; the others come with the queue, and stay for as long as a start takes."""
    mean = per_minute / 60 * busy_s(kind)
    cold_s = kind.first_look_s + kind.load_s
    fleet = Fleet(
        min_workers=int(mean),
        max_workers=math.ceil(3 * mean) + 2,
        idle_timeout_s=cold_s,
        price_per_hour=price,
    )
    return simulate(kind, fleet, load_of(per_minute))


def own(kind: WorkerKind, per_minute: float) -> Outcome:
    """The fewest cards that are quick enough."""
    low = max(1, math.ceil(per_minute / 60 * busy_s(kind)))
    high = low
    while not _is_quick(with_cards(kind, per_minute, cards=high), kind):
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        if _is_quick(with_cards(kind, per_minute, cards=middle), kind):
            high = middle
        else:
            low = middle + 1
    return with_cards(kind, per_minute, cards=low)


def with_cards(kind: WorkerKind, per_minute: float, *, cards: int) -> Outcome:
    fleet = Fleet(min_workers=cards, max_workers=cards, idle_timeout_s=math.inf)
    return simulate(kind, fleet, load_of(per_minute))


def money_per_1000(cards: int, per_minute: float, *, month: float) -> float:
    return 1000 * cards * month / (per_minute * MONTH_MIN)


def gateways(costs: Costs, per_minute: float) -> int:
    """Processes that a burst needs, none busier than one plans with."""
    return max(1, math.ceil(per_minute * _peak() / 60 * costs.gateway_s / PLANNED_SHARE))


def shares(costs: Costs, per_minute: float) -> dict[str, float]:
    """How much of one gateway, one Redis, one folder and one bucket a burst takes; the fullest first."""
    a_second = per_minute * _peak() / 60
    used = {
        "gateway": a_second * costs.gateway_s,
        "Redis": a_second * costs.redis_s,
        "shared folder": a_second * RESULT_MB / costs.disk_mb_s,
        "bucket": a_second / costs.bucket_puts_s,
    }
    return dict(sorted(used.items(), key=lambda pair: -pair[1]))


def busy_s(kind: WorkerKind) -> float:
    return kind.gpu_s + kind.deliver_s + kind.idle_s


def _peak() -> float:
    """A burst's rate by the mean's."""
    return BURST / (0.9 + 0.1 * BURST)


def _is_quick(outcome: Outcome, kind: WorkerKind) -> bool:
    return outcome.wait_s(0.95) <= busy_s(kind) + WITHIN_S
