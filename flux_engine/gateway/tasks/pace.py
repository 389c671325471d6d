"""How often the sweep looks at a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between two looks at one task.

    A worker that cannot tell the gateway of its end, by the queue's hook or through Redis, has its next job the later,
    the later the gateway looks.
    """

    tick: float = 0.25
    least: float = 0.3  # of a task that the queue has
    most: float = 15.0
    looks_a_second: float = 45.0  # at all that the queue has: a quarter of what RunPod takes
    ending: float = 0.2  # its worker has said that it is done, and the result is on its way
    told: float = 60.0  # while its worker tells progress through Redis
    told_within: float = 20.0
    in_line: float = 5.0
    after_error: float = 2.0
    unknown_again: float = 3.0  # a job that has just been submitted may not be known at once
    at_once: int = 32

    def between(self, in_flight: int) -> float:
        """Seconds between two looks at each of `in_flight` tasks."""
        return min(max(in_flight / self.looks_a_second, self.least), self.most)
