from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from flux_engine.media.mosaic import Mosaic, tiles_of


@pytest.mark.parametrize(("size", "count"), [((2048, 2048), 9), ((1024, 1024), 1), ((2048, 1024), 3), ((100, 1100), 2)])
def test_tiles_cover_everything_and_overlap(size: tuple[int, int], count: int) -> None:
    boxes = tiles_of(size, side=1024, overlap=256)
    covered = np.zeros((size[1], size[0]), int)
    for left, top, right, bottom in boxes:
        assert right - left <= 1024
        assert bottom - top <= 1024
        covered[top:bottom, left:right] += 1
    assert len(boxes) == count
    assert covered.min() == 1
    lefts = sorted({box[0] for box in boxes})
    assert all(b - a <= 1024 - 256 for a, b in itertools.pairwise(lefts))


def test_tiles_of_different_brightness_leave_no_seam() -> None:
    beneath = Image.linear_gradient("L").convert("RGB")
    mosaic = Mosaic(beneath)
    for index, box in enumerate(tiles_of(beneath.size, side=128, overlap=32)):
        shift = (-20, 25, 10)[index % 3]
        mosaic.add(
            Image.fromarray((np.asarray(beneath.crop(box)).astype(int) + shift).clip(0, 255).astype(np.uint8)), box
        )
    made = np.asarray(mosaic.picture()).astype(int)
    assert np.abs(np.diff(made, axis=1)).max() <= 2  # the gradient runs downwards
    assert np.abs(made - np.asarray(beneath))[24:-24].max() <= 4
