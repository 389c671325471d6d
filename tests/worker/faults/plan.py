"""Which call fails, and how."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal

Seam = Literal["redis", "store", "web", "volume", "stream"]
Way = Literal["refused", "lost", "repeated", "cancelled", "cancelled late", "cancelled, read late"]

WAYS: Final[dict[Seam, tuple[Way, ...]]] = {
    "redis": ("refused", "lost", "repeated", "cancelled", "cancelled late", "cancelled, read late"),
    "store": ("refused", "lost", "cancelled", "cancelled late"),
    "web": ("refused", "lost", "cancelled", "cancelled late"),
    "volume": ("refused", "lost", "cancelled", "cancelled late"),
    "stream": ("refused", "lost", "cancelled", "cancelled late"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """The `number`-th call of `seam` fails in this `way`.

    `refused`: it is not carried out. `lost`: it is, and its answer does not arrive. `repeated`: the answer of its first
    try is lost and its second try goes through. `cancelled`: the job is cancelled before it is carried out, or `late`,
    when it has been and before the answer arrives. `read late`: the server reads it after what comes on other
    connections.
    """

    seam: Seam
    number: int
    way: Way

    @property
    def cancels(self) -> bool:
        return self.way.startswith("cancelled")


class Calls:
    """Counts the calls of each seam while it is armed; the planned one learns its way."""

    def __init__(self) -> None:
        self.counted: Counter[Seam] = Counter()
        self.struck = asyncio.Event()
        self._fault: Fault | None = None
        self._subject: asyncio.Task[Any] | None = None

    def arm(self, subject: asyncio.Task[Any], fault: Fault | None) -> None:
        self._subject, self._fault = subject, fault

    def disarm(self) -> None:
        self._subject = self._fault = None

    def next(self, seam: Seam) -> Way | None:
        """The way in which this call fails; mostly None."""
        if self._subject is None:
            return None
        self.counted[seam] += 1
        fault = self._fault
        if fault is None or (fault.seam, fault.number) != (seam, self.counted[seam]):
            return None
        self.struck.set()
        return fault.way

    def cancel(self) -> None:
        """Cancel the job that is looked at."""
        if self._subject is not None:
            self._subject.cancel()
