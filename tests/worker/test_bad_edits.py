"""Bad edits, enlargements, maps, references and boxes, each with the code and the field that a client reads."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from flux_engine.job.schema.forms import PICTURE
from flux_engine.worker.worker import Worker


def png(size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


NO_PICTURE = base64.b64encode(b"no picture").decode()
EDIT: dict[str, Any] = {"image": PICTURE, "mask": PICTURE}
MAP: dict[str, Any] = {"type": "canny", "image": PICTURE}
BOX: dict[str, Any] = {"prompt": "a red sun", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}
BOXED: dict[str, Any] = {"model": "FLUX.3-klein"}
LOOKED_AT: dict[str, Any] = {"model": "FLUX.2-dev"}
GROWN: dict[str, Any] = {"image": PICTURE}
SIDES = ("left", "right", "top", "bottom")

KINDS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "a blend below 0": (EDIT | {"mask_feather": -1}, "invalid_input", "mask_feather"),
    "a blend over 64": (EDIT | {"mask_feather": 65}, "invalid_input", "mask_feather"),
    "a blend in words": (EDIT | {"mask_feather": "soft"}, "invalid_input", "mask_feather"),
    "a blend of nothing": (GROWN | {"mask_feather": 4}, "invalid_input", "mask_feather"),
    "two different blends": (EDIT | {"mask_feather": 4, "mask_blur": 5}, "invalid_input", "mask_blur"),
    "a part of a pixel cut out": (EDIT | {"mask_crop": 0.5}, "invalid_input", "mask_crop"),
    "too much cut out": (EDIT | {"mask_crop": 513}, "invalid_input", "mask_crop"),
    "cut out by no mask": (GROWN | {"mask_crop": 32}, "invalid_input", "mask_crop"),
    "cut out by true": (EDIT | {"mask_crop": True}, "invalid_input", "mask_crop"),
    "cut out of a video": (EDIT | {"mask_crop": 5, "num_frames": 4}, "invalid_input", "mask"),
    "a mask that is no base64": (GROWN | {"mask": "%%"}, "invalid_input", "mask"),
    "a mask that is no picture": (GROWN | {"mask": NO_PICTURE, "mask_crop": 4}, "invalid_input", "mask"),
    "a mask without TLS": (GROWN | {"mask": "http://example.com/m.png"}, "invalid_input", "mask"),
    "a mask of a private address": (GROWN | {"mask": "https://10.0.0.1/m.png"}, "input_fetch_failed", "mask"),
    "a mask of 20 megapixels": (GROWN | {"mask": png((5000, 4000))}, "input_fetch_failed", "mask"),
    "grown without a picture": ({"expand": {"left": 5}}, "invalid_input", "expand"),
    "grown by nothing": (GROWN | {"expand": {}}, "invalid_input", "expand"),
    "grown inwards": (GROWN | {"expand": {"left": -1}}, "invalid_input", "expand.left"),
    "grown too far": (GROWN | {"expand": {"top": 2049}}, "invalid_input", "expand.top"),
    "grown to no side that there is": (GROWN | {"expand": {"up": 5}}, "invalid_input", "expand"),
    "grown by a number": (GROWN | {"expand": 64}, "invalid_input", "expand"),
    "grown by a list": (GROWN | {"expand": [64, 0, 0, 0]}, "invalid_input", "expand"),
    "grown beyond all bounds": (
        {"image": png((1000, 800)), "expand": dict.fromkeys(SIDES, 2048)}, "invalid_input", "expand"
    ),
    "a video that grows": (GROWN | {"expand": {"left": 5}, "num_frames": 4}, "invalid_input", "expand"),
    "grown by a model that cannot": (GROWN | LOOKED_AT | {"expand": {"left": 5}}, "invalid_input", "expand"),
    "enlarged three times": ({"upscale": 3}, "invalid_input", "upscale"),
    "enlarged by words": ({"upscale": "4x"}, "invalid_input", "upscale"),
    "enlarged beyond the bound": (
        {"upscale": 4, "model": "FLUX.1-dev", "size": "2048x1024"}, "invalid_input", "upscale"
    ),
    "an enlarged video": ({"upscale": 2, "num_frames": 4}, "invalid_input", "upscale"),
    "a map of no known type": ({"control": MAP | {"type": "scribble"}}, "invalid_input", "control.type"),
    "a map without a picture": ({"control": {"type": "canny"}}, "invalid_input", "control.image"),
    "a map that is followed too closely": ({"control": MAP | {"strength": 2.1}}, "invalid_input", "control.strength"),
    "a map for more than all steps": ({"control": [MAP | {"end": 1.1}]}, "invalid_input", "control[0].end"),
    "three maps": ({"control": [MAP] * 3}, "invalid_input", "control"),
    "a map beside a mask": (EDIT | {"control": MAP}, "invalid_input", "mask"),
    "a map for a model without": (LOOKED_AT | {"control": MAP}, "invalid_input", "control"),
    "a map without a network": ({"control": MAP}, "model_unavailable", None),
    "eleven references": (LOOKED_AT | {"images": [PICTURE] * 11}, "invalid_input", "images"),
    "references beside a picture": (LOOKED_AT | GROWN | {"images": [PICTURE]}, "invalid_input", "image"),
    "a reference that is none": (LOOKED_AT | {"images": [PICTURE, None]}, "invalid_input", "images[1]"),
    "references that leave a number out": (
        LOOKED_AT | {"input_image": PICTURE, "input_image_3": PICTURE}, "invalid_input", "input_image_3"
    ),
    "a reference for a blind model": ({"images": [PICTURE]}, "invalid_input", "images"),
    "a reference as a strip": (
        {"model": "flux-tiny-kontext", "images": [png((900, 100))]}, "invalid_input", "images[0]"
    ),
    "a reference that is no picture": (
        {"model": "flux-tiny-kontext", "images": [NO_PICTURE]}, "invalid_input", "images[0]"
    ),
    "33 boxes": (BOXED | {"boxes": [BOX] * 33}, "invalid_input", "boxes"),
    "a box in pixels": (BOXED | {"boxes": [BOX | {"x": 100}]}, "invalid_input", "boxes[0].x"),
    "a box over the edge": (BOXED | {"boxes": [BOX, BOX | {"y": 0.7}]}, "invalid_input", "boxes[1].height"),
    "a box of nothing": (BOXED | {"boxes": [BOX | {"prompt": None}]}, "invalid_input", "boxes[0].prompt"),
    "a box for another model": ({"boxes": [BOX]}, "invalid_input", "boxes"),
    "enhanced by a number": (BOXED | {"enhance_prompt": 1}, "invalid_input", "enhance_prompt"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "field"), KINDS.values(), ids=KINDS.keys())
async def test_a_bad_wish_has_its_code(worker: Worker, fields: dict[str, Any], code: str, field: str | None) -> None:
    answer = await worker.run({"id": "bad", "input": {"prompt": "a red sun", **fields}})
    error = json.loads(answer["error"])
    assert (error["code"], error.get("field"), error["job_id"]) == (code, field, "bad"), error["message"]
    assert error["message"]
