"""Where a frame stands between its keyframes, and how one eases into the next.

Pure functions of numbers. A position is a frame's place among the frames that are played, from 0, and need not be
whole: fewer frames can be made than are played.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from flux_engine.job.timeline import Keyframe


@dataclass(frozen=True, slots=True)
class Place:
    """`share` (0 to below 1) of the way from keyframe `before` to keyframe `after`, both indices."""

    before: int
    after: int
    share: float


def place_at(keyframes: Sequence[Keyframe], position: float, *, num_frames: int, is_loop: bool) -> Place:
    """Between which keyframes `position` lies. After the last one it stays there, or in a loop goes to the first."""
    index = bisect_right(keyframes, position, key=lambda keyframe: keyframe.frame) - 1
    start = keyframes[index].frame
    if index + 1 < len(keyframes):
        return Place(index, index + 1, (position - start) / (keyframes[index + 1].frame - start))
    if is_loop:
        return Place(index, 0, (position - start) / (num_frames - start))
    return Place(index, index, 0.0)


def eased(share: float) -> float:
    """0 to 1 with a level start and end: 3 s^2 - 2 s^3."""
    return share * share * (3 - 2 * share)
