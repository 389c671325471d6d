"""Two ways of having workers, simulated: started by demand and paid by the second, or so many cards of one's own.

Jobs are taken first come, first served, and take `job_s` each. Both give what happened over all of the time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.fleet import quantile

JOBS_A_WORKER: Final = 4  # RunPod's default: a worker for each four jobs, waiting or running
TICK_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    most_workers: int
    paid_s: float  # of all workers, from their start to their end
    busy_share: float
    waiting_p95_s: float


def by_demand(come: Sequence[float], *, job_s: float, cold_s: float, least: int) -> Happened:
    """RunPod's scaling by request count, with `least` active workers. One is paid while it starts, works and idles; it
    idles as long as a start takes, as docs/deploy.md advises."""
    waiting: deque[float] = deque()
    idle = [0.0] * least  # since when, the latest last
    busy: list[float] = []  # until when
    starting: deque[float] = deque()  # until when
    waits: list[float] = []
    paid_s, most, now = 0.0, 0, 0.0
    next_job = iter((*come, float("inf")))
    coming = next(next_job)
    while coming < float("inf") or waiting or busy:
        now += TICK_S
        while coming <= now:
            waiting.append(coming)
            coming = next(next_job)
        while starting and starting[0] <= now:
            idle.append(starting.popleft())
        _take(waiting, idle, busy, waits, job_s=job_s, until=now)
        workers = len(idle) + len(busy) + len(starting)
        wanted = max(least, -(-(len(waiting) + len(busy)) // JOBS_A_WORKER))
        starting.extend([now + cold_s] * (wanted - workers))
        can_go = max(0, workers - wanted)
        gone = sum(1 for since in idle[:can_go] if now - since > cold_s)
        del idle[:gone]
        workers = len(idle) + len(busy) + len(starting)
        most = max(most, workers)
        paid_s += workers * TICK_S
    return Happened(
        most_workers=most,
        paid_s=paid_s,
        busy_share=len(come) * job_s / paid_s,
        waiting_p95_s=quantile(waits, 0.95),
    )


def _take(
    waiting: deque[float], idle: list[float], busy: list[float], waits: list[float], *, job_s: float, until: float
) -> None:
    """Hand out what waits, at the moment when a worker was free: the one that worked last goes first."""
    while busy and busy[0] <= until:
        idle.append(heapq.heappop(busy))
        idle.sort()
        while waiting and idle:
            begun = max(waiting[0], idle.pop())
            waits.append(begun - waiting.popleft())
            heapq.heappush(busy, begun + job_s)
    while waiting and idle:
        begun = max(waiting[0], idle.pop())
        waits.append(begun - waiting.popleft())
        heapq.heappush(busy, begun + job_s)


def own_cards(come: Sequence[float], *, job_s: float, cards: int) -> Happened:
    """So many workers, always there."""
    free = [0.0] * cards
    waits = []
    for at in come:
        begun = max(at, free[0])
        heapq.heapreplace(free, begun + job_s)
        waits.append(begun - at)
    total_s = max(come[-1], *free)
    paid_s = total_s * cards
    return Happened(
        most_workers=cards,
        paid_s=paid_s,
        busy_share=len(come) * job_s / paid_s,
        waiting_p95_s=quantile(waits, 0.95),
    )


def fewest_cards(come: Sequence[float], *, job_s: float, wait_s: float) -> Happened:
    """The fewest cards with which 95 of 100 jobs wait `wait_s` at most."""
    low, high = 1, 1
    while own_cards(come, job_s=job_s, cards=high).waiting_p95_s > wait_s:
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        if own_cards(come, job_s=job_s, cards=middle).waiting_p95_s > wait_s:
            low = middle + 1
        else:
            high = middle
    return own_cards(come, job_s=job_s, cards=low)
