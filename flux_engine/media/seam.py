"""Where a drawn part meets the picture that it is put back into: how it is blended, and its colours made to fit.

Outside the mask every pixel stays what it was: the blend lies inside it. A model's autoencoder shifts colours a little,
and what it draws does not end where a mask ends, so a plain paste shows an edge. Here the difference between picture
and drawing, known around the mask, is spread smoothly over the inside and added there (Perez et al., Poisson Image
Editing, 2003): across the edge the pixels then change as they do within the drawing. A slight difference is one of
colour and is taken from all of the inside. The rest is a thing that the edge cuts through, and fades within a few
blends: else a red sun that touches the edge would be washed out by the sky around it. It fades slowly at first, so that
the steepest change lies further in and not at the edge, where it would draw a line.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RELAXATIONS: Final = 4  # of the spread difference, at each scale
BILINEAR: Final = Image.Resampling.BILINEAR
MARGIN: Final = 4  # pixels around a mask in which the difference is looked at
SLIGHT: Final = 24  # levels: more is no difference of colour
FADES_OVER: Final = 1.7  # times the blend: what an edge cuts through has its own colour after about four of them

Values = NDArray[np.float32]


def put_back(drawn: Image.Image, into: Image.Image, mask: Image.Image, *, feather: int) -> Image.Image:
    """`drawn` within `mask`, blended over `feather` pixels inside it, and the very pixels of `into` elsewhere.

    All are of one size; `mask` is L, and 0 is outside.
    """
    box = mask.getbbox()
    if box is None:
        return into.copy()
    left, top, right, bottom = box
    near = (
        *(max(left - MARGIN, 0), max(top - MARGIN, 0)),
        *(min(right + MARGIN, mask.width), min(bottom + MARGIN, mask.height)),
    )
    part = mask.crop(near)
    inside = np.asarray(part) > 0
    before, after = _values(into.crop(near)), _values(drawn.crop(near))
    fitted = after + _correction(before - after, ~inside, fades_over=FADES_OVER * max(feather, 1))
    share = blend(part, feather)[..., None]
    mixed = np.where(inside[..., None], before + (fitted - before) * share, before)
    whole = into.copy()
    whole.paste(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)), near[:2])
    return whole


def blend(mask: Image.Image, feather: int) -> Values:
    """How much of the drawing is seen, 0 to 1: 0 outside, rising over `feather` pixels inside.

    A part narrower than that rises over what it has, so that a line or a single pixel is drawn as well.
    """
    levels: Values = np.asarray(mask, np.float32) / np.float32(255)
    if feather < 2:
        return levels
    depth = _depth(np.asarray(mask) > 0, feather)
    blended: Values = levels * (depth / np.maximum(_deepest_near(depth), 1)).astype(np.float32)
    return blended


def _correction(difference: Values, known: NDArray[np.bool_], *, fades_over: float) -> Values:
    is_slight = known & (np.abs(difference).max(-1) <= SLIGHT)
    correction = spread(difference, is_slight)
    if (known & ~is_slight).any():
        correction = correction + _faded(difference - correction, known, fades_over=fades_over)
    return correction


def _faded(values: Values, known: NDArray[np.bool_], *, fades_over: float) -> Values:
    """`values` where they are `known`; from there they fade to 0, along an edge with no slope at its beginning."""
    with_ones = np.concatenate([values, np.ones_like(values[..., :1])], axis=-1)
    found = spread(with_ones, known, fades_over=fades_over)
    fading, left = found[..., :-1], found[..., -1:]  # both fall alike, so their quotient is what is known nearby
    return fading * left * (3 - 2 * left)


def spread(values: Values, known: NDArray[np.bool_], *, fades_over: float = math.inf) -> Values:
    """`values` (rows, columns, channels) where they are `known`, elsewhere their smooth continuation, which fades to 0
    over so many pixels.

    Solved from coarse to fine, each scale by a few relaxations; nothing known: 0.
    """
    rows, columns = known.shape
    if known.all() or not known.any() or max(rows, columns) <= 2:
        count = max(int(known.sum()), 1)
        mean = (values * known[..., None]).sum((0, 1)) / count * (0 if fades_over < math.inf else 1)
        return np.where(known[..., None], values, mean).astype(np.float32)
    coarse, is_coarse_known = _halved(values, known)
    guess = spread(coarse, is_coarse_known, fades_over=fades_over / 2)
    found = np.where(known[..., None], values, _doubled(guess, rows, columns))
    return _relaxed(found, ~known, share=1 / (5 + 1 / fades_over**2))


def _relaxed(values: Values, free: NDArray[np.bool_], *, share: float) -> Values:
    """`values` with each that is `free` drawn towards that `share` of the sum of it and its four neighbours."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    inner, is_free = padded[1:-1, 1:-1], free[..., None]
    for _ in range(RELAXATIONS):
        around = padded[:-2, 1:-1] + padded[2:, 1:-1]
        around += padded[1:-1, :-2]
        around += padded[1:-1, 2:]
        around += inner
        around *= np.float32(share)
        np.copyto(inner, around, where=is_free)
        padded[0], padded[-1] = padded[1], padded[-2]
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
    return inner


def _values(picture: Image.Image) -> Values:
    return np.asarray(picture.convert("RGB"), np.float32)


def _depth(inside: NDArray[np.bool_], most: int) -> NDArray[np.uint8]:
    """How many pixels deep each one lies, up to `most`; a picture's own border is no edge."""
    depth = inside.astype(np.uint8)
    for _ in range(most - 1):
        inside = _among_neighbours(np.logical_and, inside)
        depth += inside
    return depth


def _deepest_near(depth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The greatest depth as near as it is deep, so that a thin part is measured by itself."""
    for _ in range(int(depth.max(initial=0))):
        depth = _among_neighbours(np.maximum, depth)
    return depth


def _among_neighbours(chosen: Any, values: NDArray[Any]) -> NDArray[Any]:
    """What `chosen`, a ufunc of two, leaves of each pixel and its eight neighbours."""
    rows = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    across = chosen(chosen(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(across, ((0, 0), (1, 1)), mode="edge")
    return np.asarray(chosen(chosen(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:]))


def _halved(values: Values, known: NDArray[np.bool_]) -> tuple[Values, NDArray[np.bool_]]:
    """Half the size; a cell is known where one of its four is, and is their mean."""
    rows, columns = known.shape
    odd = ((0, rows % 2), (0, columns % 2))
    weight = np.pad(known.astype(np.float32), odd)
    weighted = np.pad(values * known[..., None], (*odd, (0, 0)))
    counts = weight[::2, ::2] + weight[1::2, ::2] + weight[::2, 1::2] + weight[1::2, 1::2]
    sums = weighted[::2, ::2] + weighted[1::2, ::2] + weighted[::2, 1::2] + weighted[1::2, 1::2]
    return (sums / np.maximum(counts, 1)[..., None]).astype(np.float32), counts > 0


def _doubled(values: Values, rows: int, columns: int) -> Values:
    """Twice the size, bilinear."""
    channels = [
        np.asarray(Image.fromarray(values[..., i]).resize((values.shape[1] * 2, values.shape[0] * 2), BILINEAR))
        for i in range(values.shape[2])
    ]
    return np.stack(channels, axis=-1)[:rows, :columns]
