"""How often the sweep looks at a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between two looks at one task."""

    tick: float = 0.25
    running: float = 1.0
    queued: float = 15.0
    queued_while_few: float = 1.0  # up to `few` tasks at once
    few: int = 50
    ending: float = 0.2  # its worker has said that it is done, and the result is on its way
    told: float = 60.0  # while its worker tells progress through Redis
    told_within: float = 20.0
    in_line: float = 5.0
    after_error: float = 2.0
    unknown_again: float = 3.0  # a job that has just been submitted may not be known at once
    at_once: int = 32
