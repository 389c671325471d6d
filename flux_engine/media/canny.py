"""Edges of a picture, white on black, as a ControlNet for canny is trained on (Canny, 1986)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

WEAK: Final = 100.0  # of the gradient's length; an edge goes on from there ...
STRONG: Final = 200.0  # ... where it is that strong somewhere
SOFTENED_BY: Final = 1.4  # pixels
EXTREME: Final = 0.97  # of a map's pixels are black or white

Edges = NDArray[np.bool_]


def edge_map(picture: Image.Image) -> Image.Image:
    """The edges of `picture` (RGB), or `picture` where it is such a map."""
    grey = np.asarray(picture.convert("L"))
    is_extreme = (grey < 32) | (grey > 223)
    if is_extreme.mean() > EXTREME and (grey > 223).mean() < 0.4:
        return picture.convert("RGB")
    soft = np.asarray(picture.convert("L").filter(ImageFilter.GaussianBlur(SOFTENED_BY)), np.float32)
    across, down = _sobel(soft)
    length = np.hypot(across, down)
    ridge = _thinned(length, across, down)
    found = _followed(ridge > STRONG, ridge > WEAK)
    return Image.fromarray(found.astype(np.uint8) * 255).convert("RGB")


def _sobel(values: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]


def _thinned(length: NDArray[Any], across: NDArray[Any], down: NDArray[Any]) -> NDArray[Any]:
    """`length` where it is greatest along the gradient, else 0: edges one pixel wide."""
    turn = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4
    padded = np.pad(length, 1)
    steps = ((0, 1), (1, 1), (1, 0), (1, -1))  # down and right, by turns of 45 degrees
    rows, columns = length.shape
    keeps = np.zeros(length.shape, bool)
    for direction, (dy, dx) in enumerate(steps):
        ahead = padded[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
        behind = padded[1 - dy : 1 - dy + rows, 1 - dx : 1 - dx + columns]
        keeps |= (turn == direction) & (length >= ahead) & (length > behind)
    return np.where(keeps, length, 0)


def _followed(strong: Edges, weak: Edges) -> Edges:
    """`strong`, and what of `weak` hangs together with it."""
    while True:
        near = np.asarray(Image.fromarray(strong.astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0
        grown = near & weak
        if (grown == strong).all() or not (grown & ~strong).any():
            return strong
        strong = strong | grown
