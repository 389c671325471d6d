"""A picture moved as a camera would: zoomed, panned and turned, to parts of a pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flux_engine.job.timeline import Motion, value_at

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """How the picture moves from one frame to the next: `zoom` is a factor, pans are shares of the sides, `rotate` is
    degrees. Positive pans move right and down, a positive angle turns counterclockwise."""

    zoom: float = 1.0
    pan_x: float = 0.0
    pan_y: float = 0.0
    rotate: float = 0.0


def move_between(motion: Motion, start: float, end: float) -> Move:
    """What `motion`, which is given a played frame, amounts to from position `start` to `end`."""
    frames = end - start
    return Move(
        zoom=value_at(motion.zoom, end) ** frames,
        pan_x=value_at(motion.pan_x, end) * frames,
        pan_y=value_at(motion.pan_y, end) * frames,
        rotate=value_at(motion.rotate, end) * frames,
    )


def warped(picture: Tensor, move: Move) -> Tensor:
    """`picture` (3, height, width) in 0 to 1, moved about its centre; what comes in at a border is a reflection.

    Bicubic: bilinear resampling blurs a little, and a chain of frames would add that up.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    if move == Move():
        return picture
    height, width = picture.shape[-2:]
    cosine = math.cos(math.radians(move.rotate)) / move.zoom
    sine = math.sin(math.radians(move.rotate)) / move.zoom
    # From where each output pixel is taken, in grid_sample's terms: -1 to 1 along each side, y downwards. Turning keeps
    # shapes only if both axes are in pixels, hence height / width.
    to_source = torch.tensor(
        [[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]], dtype=torch.float32
    )
    shift = torch.tensor([2 * move.pan_x, 2 * move.pan_y])
    to_source[:, 2] = -to_source[:, :2] @ shift
    grid = affine_grid(to_source[None].to(picture.device), [1, 3, height, width], align_corners=False)
    moved = grid_sample(picture[None].float(), grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return moved[0].clamp(0, 1)
