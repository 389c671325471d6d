"""Which part of a picture the model draws, where it is not the whole of it.

With `mask_crop` the masked part is cut out with its surroundings, with `expand` the picture lies on a larger canvas.
The part is drawn at `width` x `height` and put back, so the result has the picture's own size, or the canvas's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flux_engine.job.edits.expand import Expand

LEAST_SIDE: Final = 64  # pixels that are cut out at least: less shows the model nothing of the picture
LONGEST_SHAPE: Final = 3.0  # of the sides of a part: it is cut out wider rather than drawn as a strip

Sides = tuple[int, int]  # width and height
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """`canvas` is the result's size, `at` where the given picture lies on it, `box` what the model draws of it."""

    canvas: Sides
    at: Sides
    box: Box

    @property
    def sides(self) -> Sides:
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    def shaped(self, width: int, height: int) -> Region:
        """The region in the shape of `width` to `height`, as far as the canvas has room for it."""
        across, down = self.sides
        if across * height < width * down:
            across = round(down * width / height)
        else:
            down = round(across * height / width)
        return Region(canvas=self.canvas, at=self.at, box=_grown(self.box, across, down, self.canvas))


def region_of(
    picture: Sides, *, painted: Box | None, mask_crop: int | None, expand: Expand | None = None
) -> Region | None:
    """The part of a `picture` that is drawn, of any shape; None where the whole picture is, at the result's own size.

    `painted` is the smallest box around what a mask leaves to paint.
    """
    if mask_crop is None and expand is None:
        return None
    canvas, at = picture, (0, 0)
    if expand is not None:
        canvas, at = expand.canvas(picture), (expand.left, expand.top)
        painted = _around([_moved(painted, at), *_added(expand, canvas)])
    if mask_crop is None or painted is None:
        return Region(canvas=canvas, at=at, box=(0, 0, *canvas))
    left, top, right, bottom = painted
    across = min(right - left + 2 * mask_crop, canvas[0])
    down = min(bottom - top + 2 * mask_crop, canvas[1])
    across = max(across, LEAST_SIDE, round(down / LONGEST_SHAPE))
    down = max(down, LEAST_SIDE, round(across / LONGEST_SHAPE))
    return Region(canvas=canvas, at=at, box=_grown(painted, across, down, canvas))


def _grown(box: Box, across: int, down: int, canvas: Sides) -> Box:
    """A box of at least `across` x `down` pixels about the middle of `box`, moved to lie on the canvas."""
    left, right = _span(box[0], box[2], across, canvas[0])
    top, bottom = _span(box[1], box[3], down, canvas[1])
    return left, top, right, bottom


def _span(begin: int, end: int, wanted: int, most: int) -> tuple[int, int]:
    length = min(max(wanted, end - begin), most)
    begin = min(max(begin - (length - (end - begin)) // 2, 0), most - length)
    return begin, begin + length


def _added(expand: Expand, canvas: Sides) -> list[Box]:
    width, height = canvas
    sides: list[Box] = [
        (0, 0, expand.left, height),
        (width - expand.right, 0, width, height),
        (0, 0, width, expand.top),
        (0, height - expand.bottom, width, height),
    ]
    return [box for box in sides if box[0] < box[2] and box[1] < box[3]]


def _moved(box: Box | None, by: Sides) -> Box | None:
    return None if box is None else (box[0] + by[0], box[1] + by[1], box[2] + by[0], box[3] + by[1])


def _around(boxes: list[Box | None]) -> Box | None:
    there = [box for box in boxes if box is not None]
    if not there:
        return None
    lefts, tops, rights, bottoms = zip(*there, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
