"""Masks as programs save them: what is read as white, and what is said of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from flux_engine.errors import FluxError
from flux_engine.media.mask import as_large_as, decode_mask

SIZE = (64, 32)
RIGHT = (32, 0, 63, 31)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def grey(left: int, right: int, dtype: type = np.uint8) -> Image.Image:
    values: NDArray[Any] = np.full((SIZE[1], SIZE[0]), left, dtype)
    values[:, 32:] = right
    return Image.fromarray(values)


def strokes(colour: tuple[int, int, int, int], *, mode: str = "RGBA") -> Image.Image:
    canvas = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    ImageDraw.Draw(canvas).rectangle(RIGHT, fill=colour)
    return canvas.convert(mode)


def both_colours() -> Image.Image:
    canvas = strokes((255, 255, 255, 255))
    ImageDraw.Draw(canvas).rectangle((0, 0, 15, 31), fill=(0, 0, 0, 255))
    return canvas


def with_a_hole() -> Image.Image:
    photo = Image.effect_noise(SIZE, 60).convert("RGBA")
    photo.paste((0, 0, 0, 0), RIGHT)
    return photo


PAINTED = {
    "white on black": (grey(0, 255), None),
    "bits": (grey(0, 255).convert("1"), None),
    "colour": (grey(0, 255).convert("RGB"), None),
    "palette": (grey(0, 255).convert("P"), None),
    "opaque": (grey(0, 255).convert("RGBA"), None),
    "16 bits": (grey(0, 65535, np.uint16), None),
    "white strokes": (strokes((255, 255, 255, 255)), "transparency"),
    "black strokes": (strokes((0, 0, 0, 255)), "transparency"),
    "red strokes": (strokes((220, 30, 30, 255)), "transparency"),
    "half transparent strokes": (strokes((255, 255, 255, 128)), "transparency"),
    "grey strokes": (strokes((90, 90, 90, 255), mode="LA"), "transparency"),
    "white and black strokes": (both_colours(), "read as black"),
    "a picture with a hole": (with_a_hole(), "hole"),
    "0 and 1": (grey(0, 1), "0 and 1"),
    "0 and 1 in 16 bits": (grey(0, 1, np.uint16), "0 and 1"),
    "0 and 255 in 16 bits": (grey(0, 255, np.uint16), "8-bit levels"),
}


@pytest.mark.parametrize(("picture", "said"), PAINTED.values(), ids=PAINTED.keys())
def test_the_painted_half_is_white(picture: Image.Image, said: str | None) -> None:
    mask = as_large_as(decode_mask(png(picture), "mask"), (128, 64))
    assert (mask.picture.mode, mask.picture.size) == ("L", (128, 64))
    assert [mask.picture.getpixel((x, 32)) for x in (8, 120)] == [0, 255]
    assert len(mask.warnings) == (0 if said is None else 1)
    assert all(said is not None and said in warning for warning in mask.warnings)
    assert bool(mask.way) is (said is not None)


def test_sixteen_bits_with_a_transparent_level_are_read_as_those_without() -> None:
    buffer = io.BytesIO()
    grey(1000, 65535, np.uint16).save(buffer, "PNG", transparency=7)
    mask = as_large_as(decode_mask(buffer.getvalue(), "mask"), SIZE)
    assert [mask.picture.getpixel((x, 16)) for x in (8, 56)] == [0, 255]


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (grey(0, 0), "black everywhere"),
        (grey(0, 100), "dark everywhere"),
        (grey(3, 3), "dark everywhere"),
        (grey(255, 255), "white everywhere"),
        (grey(200, 255), "white everywhere"),
        (Image.new("RGBA", SIZE, (0, 0, 0, 0)), "black everywhere"),
        (grey(0, 0, np.uint16), "black everywhere"),
    ],
)
def test_a_mask_that_repaints_nothing_or_all_says_so(picture: Image.Image, said: str) -> None:
    warnings = as_large_as(decode_mask(png(picture), "mask"), SIZE).warnings
    assert any(said in warning for warning in warnings), warnings


def test_a_mask_of_another_shape_says_that_it_is_stretched() -> None:
    mask = decode_mask(png(grey(0, 255)), "mask")
    assert as_large_as(mask, (640, 320)).warnings == ()
    assert "stretched" in as_large_as(mask, (64, 64)).warnings[0]


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(FluxError, match="`mask`"):
        decode_mask(b"text", "mask")
