"""Seams: nothing outside a mask changes, and nothing shows where it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from flux_engine.media.seam import blend, put_back, spread

SIZE = (96, 64)
Draw = Callable[[Any], object]

MASKS: dict[str, Draw] = {
    "a disc": lambda d: d.ellipse((30, 20, 60, 50), fill=255),
    "a ring": lambda d: d.ellipse((20, 10, 70, 60), outline=255, width=6),
    "a star": lambda d: d.polygon([(48, 4), (56, 56), (20, 20), (76, 20), (40, 56)], fill=255),
    "a line": lambda d: d.line((5, 5, 90, 60), fill=255, width=2),
    "a hair": lambda d: d.line((5, 60, 90, 5), fill=255, width=1),
    "one pixel": lambda d: d.point((48, 32), fill=255),
    "one pixel in the corner": lambda d: d.point((0, 0), fill=255),
    "two far apart": lambda d: (d.point((2, 2), fill=255), d.ellipse((70, 40, 90, 60), fill=255)),
    "all pixels": lambda d: d.rectangle((0, 0, 95, 63), fill=255),
    "all but one": lambda d: (d.rectangle((0, 0, 95, 63), fill=255), d.point((48, 32), fill=0)),
    "the left half": lambda d: d.rectangle((0, 0, 47, 63), fill=255),
    "the border": lambda d: d.rectangle((0, 0, 95, 63), outline=255, width=5),
    "the upper edge": lambda d: d.rectangle((0, 0, 95, 3), fill=255),
    "the last column": lambda d: d.line((95, 0, 95, 63), fill=255),
    "a hole": lambda d: (d.rectangle((0, 0, 95, 63), fill=255), d.ellipse((30, 20, 60, 50), fill=0)),
    "a chequer": lambda d: [
        d.rectangle((x, y, x + 7, y + 7), fill=255) for x in range(0, 96, 16) for y in range(0, 64, 16)
    ],
    "a corner": lambda d: d.polygon([(95, 63), (40, 63), (95, 20)], fill=255),
    "a soft disc": lambda d: [d.ellipse((r, r - 10, 90 - r, 70 - r), fill=min(255, r * 8)) for r in range(12, 34)],
    "grey": lambda d: d.rectangle((20, 20, 70, 50), fill=90),
    "a comb": lambda d: [d.line((x, 10, x, 50), fill=255) for x in range(10, 90, 2)],
}


def mask_of(draw: Draw) -> Image.Image:
    mask = Image.new("L", SIZE, 0)
    draw(ImageDraw.Draw(mask))
    return mask


def scene(shift: int = 0) -> NDArray[np.int64]:
    """A slope of colours; `shift` makes it brighter, as an autoencoder may."""
    rows, columns = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    return np.stack([columns + 60, rows + 80, 160 - columns // 2], axis=-1) + shift


def picture(values: NDArray[np.int64]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize("feather", [0, 1, 8, 64])
@pytest.mark.parametrize("draw", MASKS.values(), ids=MASKS.keys())
def test_outside_the_mask_every_pixel_is_the_pictures_own(draw: Draw, feather: int) -> None:
    mask = mask_of(draw)
    noise = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3))
    made = np.asarray(put_back(picture(255 - noise), picture(noise), mask, feather=feather))
    outside = np.asarray(mask) == 0
    assert (made[outside] == noise[outside]).all()
    assert made.shape == noise.shape


@pytest.mark.parametrize("draw", MASKS.values(), ids=MASKS.keys())
def test_a_shift_of_colour_does_not_show(draw: Draw) -> None:
    """The drawing is the scene itself, all of it brighter: put back it is the scene again."""
    mask = mask_of(draw)
    made = np.asarray(put_back(picture(scene(24)), picture(scene()), mask, feather=4)).astype(int)
    wanted = scene() if mask.getextrema()[0] == 0 else scene(24)  # nothing of the picture is left to fit to
    assert np.abs(made - wanted).max() <= 2


@pytest.mark.parametrize("feather", [0, 2, 8, 40])
@pytest.mark.parametrize("draw", MASKS.values(), ids=MASKS.keys())
def test_every_part_of_a_mask_is_drawn(draw: Draw, feather: int) -> None:
    mask = mask_of(draw)
    levels = np.asarray(mask, np.float32) / 255
    share = blend(mask, feather)
    assert share.shape == levels.shape
    assert (share <= levels + 1e-6).all()
    assert share.max() == pytest.approx(levels.max(), abs=0.01)


def test_a_blend_rises_over_its_pixels() -> None:
    share = blend(mask_of(MASKS["the left half"]), 8)[32]
    assert list(share[40:49].round(3)) == [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]
    assert (share[:40] == 1).all()  # the picture's own border is no edge


def test_what_is_spread_lies_between_what_is_known() -> None:
    values = np.zeros((40, 60, 1), np.float32)
    values[:, -1] = 10
    known = np.zeros((40, 60), bool)
    known[:, 0] = known[:, -1] = True
    found = spread(values, known)[:, :, 0]
    assert (found[:, 0] == 0).all()
    assert (found[:, -1] == 10).all()
    assert (np.diff(found, axis=1) >= -1e-3).all()
    assert found[20, 30] == pytest.approx(5, abs=1.5)


def test_what_an_edge_cuts_through_keeps_its_colour() -> None:
    """A red thing in the drawing goes beyond the mask, whose outside is blue: red it stays a few pixels further in."""
    blue, red = Image.new("RGB", SIZE, (40, 90, 220)), Image.new("RGB", SIZE, (220, 30, 30))
    made = np.asarray(put_back(red, blue, mask_of(MASKS["the left half"]), feather=4)).astype(int)
    assert np.abs(made[:, :30] - (220, 30, 30)).max() <= 3
    steps = np.abs(np.diff(made[32, :, 0]))
    assert steps.max() < 70  # and where the mask ends it turns blue by degrees,
    assert steps[47] < steps.max() / 4  # which begin slowly: a steep one at the edge would be a line


def test_an_empty_mask_leaves_the_picture() -> None:
    before = picture(scene())
    assert put_back(picture(scene(24)), before, Image.new("L", SIZE, 0), feather=8).tobytes() == before.tobytes()
