"""Where a picture grows: what its border cuts and the model does not go on with fades out rather than ending there.

Along the border the drawing is compared with the picture. Where the colours at the border are found again a little
further out, nothing is done: a hill that goes on stays as sharp as it was drawn. Elsewhere the border's colours are
continued and give way to the drawing over as many pixels as the difference needs. A thing that is cut is not drawn on
by this: it ends softly. So does the near side of a new thing that touches the border.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STEEPEST: Final = 8  # levels over as many pixels as the seam is blended
WIDEST: Final = 8  # times the blend of the seam: where a thing is cut, and there is room

Box = tuple[int, int, int, int]
Values = NDArray[np.float32]


def faded_on(made: Image.Image, continued: Image.Image, kept: Box, *, feather: int) -> Image.Image:
    """`made`, but from the edge of `kept` outwards it is `continued` first where the two do not fit together.

    Both are of one size; `kept` is where the picture lies that grew, and nothing within it changes.
    """
    if feather < 1:
        return made
    pixels, (left, top, right, bottom) = np.asarray(made), kept
    across, down = (left, made.width - right), (top, made.height - bottom)
    width = np.zeros(pixels.shape[:2], np.float32)  # in a corner the wider of the two that end there
    for rows, seen in (
        (width[:, :left], pixels[top:bottom, : left + 1][:, ::-1]),
        (width[:, right:], pixels[top:bottom, right - 1 :]),
    ):
        np.maximum(rows, np.pad(_fading_widths(seen, feather), down, mode="edge")[:, None], out=rows)
    for columns, seen in (
        (width[:top], pixels[: top + 1, left:right][::-1].swapaxes(0, 1)),
        (width[bottom:], pixels[bottom - 1 :, left:right].swapaxes(0, 1)),
    ):
        np.maximum(columns, np.pad(_fading_widths(seen, feather), across, mode="edge"), out=columns)
    depth = np.hypot(_beyond(top, bottom, made.height)[:, None], _beyond(left, right, made.width))
    share = np.minimum(depth / (width + 1), 1)
    share[top:bottom, left:right] = 1
    return Image.composite(made, continued, Image.fromarray((share * 255).round().astype(np.uint8)))


def _beyond(begin: int, end: int, length: int) -> Values:
    """How far each of `length` pixels lies before `begin` or after those up to `end`."""
    at = np.arange(length, dtype=np.float32)
    return np.maximum(np.maximum(begin - at, at - (end - 1)), 0)


def _fading_widths(seen: NDArray[np.uint8], feather: int) -> Values:
    """Pixels over which the border's colours fade, along a side; `seen` (along, outwards, channels) begins with the
    picture's last pixels."""
    border, room, near = seen[:, 0].astype(np.float32), seen.shape[1] - 1, feather
    if room == 0:
        return np.zeros(len(seen), np.float32)
    further = seen[:, min(near, room) : 3 * near + 1]
    lowest = _along(np.minimum, further.min(1), near).astype(np.float32)
    highest = _along(np.maximum, further.max(1), near).astype(np.float32)
    missed = np.maximum(lowest - border, border - highest).max(-1).clip(0)
    wanted = _along(np.maximum, (missed * feather / STEEPEST)[:, None], near)[:, 0]
    window = 2 * near + 1
    smooth = np.convolve(np.pad(wanted, near, mode="edge"), np.ones(window) / window, mode="valid")
    return np.minimum(smooth, min(WIDEST * feather, room)).astype(np.float32)


def _along(chosen: np.ufunc, values: NDArray[Any], reach: int) -> NDArray[Any]:
    """What `chosen` leaves of the values up to `reach` before and after each one, by rows."""
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    found = padded[: len(values)]
    for shift in range(1, 2 * reach + 1):
        found = chosen(found, padded[shift : shift + len(values)])
    return np.asarray(found)
