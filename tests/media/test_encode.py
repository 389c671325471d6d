"""Encoded images: they open, they say what made them, and PNG is exact."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_engine.media.encode import encode_image, preview_data_uri

MADE_FROM = {
    "prompt": "caf\u00e9 \u65e5\u672c sun",
    "seed": 7,
    "model": {"id": "flux-tiny"},
    "parameters": {"steps": 16},
}


@pytest.fixture
def picture() -> Image.Image:
    ramp = np.linspace(0, 255, 64 * 48 * 3).astype(np.uint8).reshape(48, 64, 3)
    return Image.fromarray(ramp, "RGB")


@pytest.mark.parametrize(("output_format", "pillow_format"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_each_format_opens_as_itself(picture: Image.Image, output_format: str, pillow_format: str) -> None:
    data = encode_image(picture, output_format, quality=90, made_from=MADE_FROM)
    opened = Image.open(io.BytesIO(data))
    assert (opened.format, opened.size, opened.mode) == (pillow_format, (64, 48), "RGB")
    difference = np.asarray(opened, np.int16) - np.asarray(picture, np.int16)
    assert np.abs(difference).mean() < (0.001 if output_format == "png" else 4)


def test_png_carries_what_made_it(picture: Image.Image) -> None:
    opened = Image.open(io.BytesIO(encode_image(picture, "png", quality=90, made_from=MADE_FROM)))
    assert opened.info["prompt"] == MADE_FROM["prompt"]
    assert opened.info["seed"] == "7"
    assert "AI-generated" in opened.info["Software"]


@pytest.mark.parametrize("output_format", ["jpg", "webp"])
def test_exif_carries_what_made_it(picture: Image.Image, output_format: str) -> None:
    opened = Image.open(io.BytesIO(encode_image(picture, output_format, quality=90, made_from=MADE_FROM)))
    exif = opened.getexif()
    assert "AI-generated" in exif[0x0131]
    comment = exif.get_ifd(0x8769)[0x9286]
    assert json.loads(comment.removeprefix(b"UNICODE\0").decode("utf-16-be")) == MADE_FROM


def said_in_exif(data: bytes) -> Any:
    comment = Image.open(io.BytesIO(data)).getexif().get_ifd(0x8769)[0x9286]
    return json.loads(comment.removeprefix(b"UNICODE\0").decode("utf-16-be"))


def test_a_jpeg_without_room_for_its_parameters_leaves_them_out(picture: Image.Image) -> None:
    boxes = [{"prompt": "\u592a" * 1000, "x": 0.0, "y": 0.0, "width": 0.5, "height": 0.5}] * 32
    made_from = {**MADE_FROM, "prompt": "\U0001f31e" * 4000, "parameters": {"boxes": boxes}}
    jpeg, webp = (encode_image(picture, kind, quality=90, made_from=made_from) for kind in ("jpg", "webp"))
    assert said_in_exif(jpeg) == {name: value for name, value in made_from.items() if name != "parameters"}
    assert said_in_exif(webp) == made_from


def test_quality_makes_smaller_files(picture: Image.Image) -> None:
    for output_format in ("jpg", "webp"):
        sizes = [len(encode_image(picture, output_format, quality=q, made_from={})) for q in (95, 20)]
        assert sizes[0] > sizes[1]


def test_a_preview_is_a_small_webp() -> None:
    uri = preview_data_uri(Image.new("RGB", (1024, 512), "red"))
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (256, 128)
