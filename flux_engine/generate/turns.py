"""The line for the device: who is next, in the order in which jobs were taken.

A job takes its place before it is prepared, and preparing takes one job longer than the next. The device waits a moment
for the job whose turn it is, then goes on with the one behind it: a slow download should cost its own job time only.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

PLACE_HELD_S: Final = 0.25  # a lookup in the cache and on the volume fits in; a download seldom does

Piece = Callable[[], None]


class Line:
    """Pieces of work by their places. Places are taken on any thread; one thread asks for the next piece."""

    def __init__(self, *, place_held_s: float = PLACE_HELD_S) -> None:
        self._place_held_s = place_held_s
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._held_until: dict[int, float] = {}  # the places of those still being prepared
        self._ready: list[tuple[int, Piece]] = []

    @contextmanager
    def place(self) -> Iterator[int]:
        """A place behind all others, kept until work is put there or the block is left."""
        with self._changed:
            number = next(self._numbers)
            self._held_until[number] = time.monotonic() + self._place_held_s
        try:
            yield number
        finally:
            self._give_up(number)

    def put(self, piece: Piece, *, place: int) -> None:
        """`piece` is ready; a place holds one."""
        with self._changed:
            self._held_until.pop(place, None)
            heapq.heappush(self._ready, (place, piece))
            self._changed.notify()

    def next(self) -> Piece:
        """The piece whose turn it is. To be asked once for each piece that was put: it waits for one."""
        with self._changed:
            while True:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._ready)[1]
                self._changed.wait(wait_s)

    def _wait_s(self) -> float | None:
        """How long the first that is ready has to wait for those before it; None where nothing is ready."""
        if not self._ready:
            return None
        first = self._ready[0][0]
        held_until = (until for place, until in self._held_until.items() if place < first)
        return max(held_until, default=0.0) - time.monotonic()

    def _give_up(self, place: int) -> None:
        with self._changed:
            self._held_until.pop(place, None)
            self._changed.notify()
