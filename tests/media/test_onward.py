"""A picture that grows: what is drawn on stays as it was drawn, what its border cuts fades."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flux_engine.media.onward import faded_on

SIZE = (120, 90)
KEPT = (30, 30, 90, 60)  # grows in all directions, by 30
RED, BLUE = (220, 30, 30), (40, 90, 220)


def picture_in(around: tuple[int, int, int]) -> Image.Image:
    whole = Image.new("RGB", SIZE, around)
    whole.paste(RED, KEPT)
    return whole


def test_what_is_drawn_on_stays_as_it_is() -> None:
    made = Image.new("RGB", SIZE, BLUE)
    ImageDraw.Draw(made).polygon([(0, 35), (119, 59), (119, 89), (0, 89)], fill=RED)
    continued = Image.new("RGB", SIZE, (0, 0, 0))
    assert faded_on(made, continued, KEPT, feather=4).tobytes() == made.tobytes()


@pytest.mark.parametrize("feather", [1, 2, 4])
def test_what_the_border_cuts_fades(feather: int) -> None:
    made = faded_on(picture_in(BLUE), Image.new("RGB", SIZE, RED), KEPT, feather=feather)
    assert made.crop(KEPT).tobytes() == Image.new("RGB", (60, 30), RED).tobytes()
    values = np.asarray(made).astype(int)
    for line in (values[45], values[:, 60]):
        assert np.abs(np.diff(line, axis=0)).max() <= 190 / (min(8 * feather, 30) + 1) + 2
        assert (abs(line[[0, -1]] - BLUE) <= 8).all()
    assert (np.diff(values[45, 90:, 0]) <= 0).all()
    assert np.abs(np.diff(values[:20], axis=1)).max() <= 190 / (min(8 * feather, 30) + 1) + 2  # nor a line in a corner


def test_without_a_blend_nothing_fades() -> None:
    made = picture_in(BLUE)
    assert faded_on(made, picture_in(RED), KEPT, feather=0).tobytes() == made.tobytes()


def test_the_least_growth_is_drawn() -> None:
    made = Image.new("RGB", (41, 30), RED)
    made.paste(BLUE, (40, 0, 41, 30))
    faded = faded_on(made, Image.new("RGB", (41, 30), RED), (0, 0, 40, 30), feather=4)
    assert faded.getpixel((39, 15)) == RED
    assert faded.getpixel((40, 15)) == (130, 60, 125)
