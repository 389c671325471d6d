"""A part of a picture that is drawn anew: cut out at the size at which the model draws, and put back where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from flux_engine.media.mask import WHITE_FROM
from flux_engine.media.onward import faded_on
from flux_engine.media.seam import blend, put_back

SOFTENED_BY: Final = 8  # pixels: what is continued beyond a picture's edge loses its streaks

Sides = tuple[int, int]  # width and height, or x and y
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """`canvas` (RGB) with what is drawn of it: the white of `mask` (L, as large) within `box`."""

    canvas: Image.Image
    mask: Image.Image
    box: Box
    feather: int  # pixels of the canvas
    kept: Box | None = None  # where the picture lies on the canvas that it grows to; None: it does not grow

    def cut(self, width: int, height: int, *, cell: int) -> tuple[Image.Image, Image.Image]:
        """The part and its mask at `width` x `height`. A model draws cells of `cell` pixels: each that the mask
        touches, and those around them. A drawing that ended with the mask would jump there by itself."""
        part = self.canvas.crop(self.box)
        if part.size != (width, height):
            part = part.resize((width, height), Image.Resampling.LANCZOS)
        white = self.mask.crop(self.box).point(lambda level: 255 * (level >= WHITE_FROM)).convert("F")
        share = np.asarray(white.resize((width // cell, height // cell), Image.Resampling.BOX))
        cells = Image.fromarray(((share > 0) * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
        return part, cells.resize((width, height), Image.Resampling.NEAREST)

    def put_back(self, drawn: Image.Image) -> Image.Image:
        """The canvas with `drawn`, what the model made of the part, in its place."""
        left, top, right, bottom = self.box
        if drawn.size != (right - left, bottom - top):
            drawn = drawn.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        part = put_back(drawn, self.canvas.crop(self.box), self.mask.crop(self.box), feather=self.feather)
        whole = self.canvas.copy()
        whole.paste(part, (left, top))
        return whole if self.kept is None else faded_on(whole, self.canvas, self.kept, feather=self.feather)


def laid_on(picture: Image.Image, canvas: Sides, at: Sides) -> Image.Image:
    """`picture` on a larger canvas, its edges continued softly: what a model that redraws begins with."""
    right, bottom = canvas[0] - at[0] - picture.width, canvas[1] - at[1] - picture.height
    padded = np.pad(np.asarray(picture), ((at[1], bottom), (at[0], right), (0, 0)), mode="edge")
    whole = Image.fromarray(padded)
    softly = blend(mask_on(None, picture.size, canvas, at), 2 * SOFTENED_BY)
    soft = whole.filter(ImageFilter.GaussianBlur(SOFTENED_BY))
    whole.paste(soft, mask=Image.fromarray((softly * 255).astype(np.uint8)))
    return whole


def mask_on(mask: Image.Image | None, size: Sides, canvas: Sides, at: Sides) -> Image.Image:
    """The mask of a picture of `size` that lies on a larger canvas, all of whose new part is white."""
    whole = Image.new("L", canvas, 255)
    whole.paste(0 if mask is None else mask, (*at, at[0] + size[0], at[1] + size[1]))
    return whole
