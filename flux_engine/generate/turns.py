"""Turns at the device: a promise that jobs reach it in the order in which they were taken.

A job takes its turn before anything is prepared for it, and keeps it through everything quick: parsing, the cache, the
volume. However slow the machine, whoever comes later waits. A job that begins something slow, a download or a wait for
another job, gives its turn up: nobody waits for it any more, and when it is ready it goes behind those that were ready
before. There is no clock in this, and no thread: whatever becomes due begins within the call that made it due.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Begin = Callable[[], None]


class Turn:
    """One job's turn: kept until it is given up, used, or its block is left."""

    def __init__(self, turns: Turns, number: int) -> None:
        self.number: Final = number
        self._turns = turns

    def give_up(self) -> None:
        """Let others pass: this job begins something slow. Giving up twice is giving up once."""
        self._turns.leave(self.number)

    def use(self, begin: Begin) -> None:
        """This job is ready: `begin` is called as soon as nobody before it keeps a turn, perhaps at once."""
        self._turns.use(self.number, begin)


class Turns:
    """Who is next. For one event loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._kept: set[int] = set()  # by jobs that are being prepared
        self._ready: list[tuple[int, Begin]] = []

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A turn behind all others. A job that leaves the block without having used it is waited for no more."""
        turn = Turn(self, next(self._numbers))
        self._kept.add(turn.number)
        try:
            yield turn
        finally:
            self.leave(turn.number)

    def use(self, number: int, begin: Begin) -> None:
        heapq.heappush(self._ready, (number, begin))
        self.leave(number)

    def leave(self, number: int) -> None:
        self._kept.discard(number)
        first_kept = min(self._kept, default=None)
        while self._ready and (first_kept is None or self._ready[0][0] < first_kept):
            _, begin = heapq.heappop(self._ready)
            begin()
