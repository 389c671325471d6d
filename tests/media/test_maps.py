from __future__ import annotations

import io

from PIL import Image, ImageDraw

from flux_engine.media.maps import is_depth_map, is_pose_map


def test_a_grey_picture_is_a_depth_map_even_as_a_jpeg() -> None:
    grey = Image.radial_gradient("L").convert("RGB")
    buffer = io.BytesIO()
    grey.save(buffer, "JPEG", quality=40)
    assert is_depth_map(grey)
    assert is_depth_map(Image.open(buffer))
    assert not is_depth_map(Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)]))
    assert not is_depth_map(Image.new("RGB", (64, 64), (90, 120, 200)))


def test_a_skeleton_on_black_is_a_pose_map() -> None:
    skeleton = Image.new("RGB", (128, 128), "black")
    for end, colour in ((20, "red"), (60, "lime"), (110, "blue")):
        ImageDraw.Draw(skeleton).line((64, 30, end, 120), fill=colour, width=6)
    assert is_pose_map(skeleton)
    assert not is_pose_map(Image.radial_gradient("L").convert("RGB"))
