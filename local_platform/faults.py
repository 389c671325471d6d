"""Faults on demand: what a network and a busy platform do to a worker's requests.

Either by chance (`FaultPlan`, reproducible by its seed) or to order (`Faults.script`, the next requests of a route).
"""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

FaultKind = Literal[
    "500",
    "502",
    "503",
    "408",
    "429",
    "reset",  # the connection is reset and nothing was done
    "lost_answer",  # the request is carried out, then the connection is reset
    "slow",  # `slow_s` pass before anything is done
    "close",  # after the answer the kept-alive connection is closed without a word
]
STATUS_FAULTS: Final = ("500", "502", "503", "408", "429")
WORKER_ROUTES: Final = frozenset({"job-take", "job-take-batch", "job-stop", "job-done", "job-stream", "ping"})


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """How often each fault strikes a request of `routes`. The rates, 0 to 1, add up to at most 1."""

    rates: Mapping[FaultKind, float] = field(default_factory=dict)
    routes: frozenset[str] = WORKER_ROUTES
    slow_s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.rates) - set(get_args(FaultKind))
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(get_args(FaultKind))}")
        if not all(0 <= rate <= 1 for rate in self.rates.values()) or sum(self.rates.values()) > 1:
            raise ValueError(f"rates must be from 0 to 1 and add up to at most 1; got {dict(self.rates)}")


class Faults:
    """Decides which request is struck by what, and counts it under `(route, kind)`."""

    def __init__(self, plan: FaultPlan | None = None) -> None:
        self.plan = plan or FaultPlan()
        self.counts: Counter[tuple[str, FaultKind]] = Counter()
        self._random = random.Random(self.plan.seed)
        self._scripts: defaultdict[str, deque[FaultKind]] = defaultdict(deque)

    def script(self, route: str, *kinds: FaultKind) -> None:
        """Strike the next requests of `route` by `kinds`, in this order."""
        self._scripts[route].extend(kinds)

    def draw(self, route: str) -> FaultKind | None:
        """The fault of the next request of `route`."""
        kind = self._scripts[route].popleft() if self._scripts[route] else self._by_chance(route)
        if kind is not None:
            self.counts[route, kind] += 1
        return kind

    def _by_chance(self, route: str) -> FaultKind | None:
        if route not in self.plan.routes:
            return None
        point = self._random.random()
        for kind, rate in self.plan.rates.items():
            point -= rate
            if point < 0:
                return kind
        return None


def arm_reset(connection: socket.socket) -> None:
    """Make closing `connection` send a reset, not an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
