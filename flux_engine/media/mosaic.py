"""A large picture put together from tiles that overlap, so that no seam shows.

    tiles = tiles_of((2048, 2048), side=1024, overlap=256)
    mosaic = Mosaic(enlarged)
    for box in tiles:
        mosaic.add(redrawn(enlarged.crop(box)), box)
    picture = mosaic.picture()

Where tiles overlap, each is seen the more the deeper a pixel lies within it. The broad colours stay those of the
picture beneath: each tile is drawn by itself, and two that agree in detail may differ in brightness.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

BROAD: Final = 1 / 32  # of a tile's side: what is wider is colour, what is narrower is detail

Sides = tuple[int, int]  # width and height
Box = tuple[int, int, int, int]  # left, top, right, bottom


def tiles_of(size: Sides, *, side: int, overlap: int) -> list[Box]:
    """Boxes of at most `side` pixels that cover `size`, row by row, each neighbour by at least `overlap`."""
    columns, rows = (_spans(length, side, overlap) for length in size)
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    if length <= side:
        return [(0, length)]
    count = -(-(length - overlap) // (side - overlap))
    begins = (round(i * (length - side) / (count - 1)) for i in range(count))
    return [(begin, begin + side) for begin in begins]


class Mosaic:
    """Tiles over `beneath`, a picture of the whole's size, whose broad colours they take. 16 bytes a pixel."""

    def __init__(self, beneath: Image.Image, *, keeps_colours: bool = True) -> None:
        self._beneath = beneath
        self._keeps_colours = keeps_colours
        self._sum = np.zeros((beneath.height, beneath.width, 3), np.float32)
        self._weight = np.zeros((beneath.height, beneath.width, 1), np.float32)

    def add(self, tile: Image.Image, box: Box) -> None:
        """`tile` at `box`, resized to it where it is of another size."""
        left, top, right, bottom = box
        if tile.size != (right - left, bottom - top):
            tile = tile.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        values = np.asarray(tile, np.float32)
        if self._keeps_colours:
            blur = ImageFilter.GaussianBlur(max(tile.size) * BROAD)
            broad = np.asarray(self._beneath.crop(box).filter(blur), np.float32)
            values = values + broad - np.asarray(tile.filter(blur), np.float32)
        weight = (_ramp(tile.height)[:, None] * _ramp(tile.width)[None, :])[..., None]
        self._sum[top:bottom, left:right] += values * weight
        self._weight[top:bottom, left:right] += weight

    def picture(self) -> Image.Image:
        """The whole. Every pixel must lie in a tile."""
        values = self._sum
        values /= self._weight
        np.rint(values, out=values)
        np.clip(values, 0, 255, out=values)
        return Image.fromarray(values.astype(np.uint8))


def _ramp(length: int) -> NDArray[np.float32]:
    """How much each pixel of a side counts: nearly nothing at its ends, most in the middle."""
    place = (np.arange(length, dtype=np.float32) + 0.5) / length
    return np.asarray(np.sin(place * np.pi) ** 2, np.float32)
