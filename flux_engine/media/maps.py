"""Whether a picture is such a map as a ControlNet follows, or one that a map is made of."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

COLOURED: Final = 24  # levels between a pixel's channels; less is what JPEG leaves of grey
FEW: Final = 0.02  # of the pixels
BLACK: Final = 48
MOSTLY: Final = 0.5


def is_depth_map(picture: Image.Image) -> bool:
    """Whether `picture` (RGB) is grey, as depth maps are."""
    values = np.asarray(picture).astype(np.int16)
    return float((values.max(-1) - values.min(-1) > COLOURED).mean()) <= FEW


def is_pose_map(picture: Image.Image) -> bool:
    """Whether `picture` (RGB) is mostly black, as skeletons of OpenPose and DWPose are."""
    return float((np.asarray(picture).max(-1) < BLACK).mean()) >= MOSTLY
