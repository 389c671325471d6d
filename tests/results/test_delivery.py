"""The platform's size limits, kept before the platform sees a result."""

from __future__ import annotations

import hashlib
import io
import random
from base64 import b64decode, b64encode
from typing import Any

import pytest
from PIL import Image

from flux_engine.errors import ResultTooLarge
from flux_engine.job.base import ParseContext
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.media.encode import encode_image
from flux_engine.results.delivery import made_to_fit, within_limit


@pytest.mark.parametrize(
    ("job_id", "megabytes", "fits"), [("a", 9.9, True), ("a", 10, False), ("sync-a", 19.9, True), ("sync-a", 20, False)]
)
def test_a_result_over_the_limit_is_refused_with_the_way_out(job_id: str, megabytes: float, fits: bool) -> None:
    result = {"images": [{"b64_json": "A" * int(megabytes * 1e6)}]}
    if fits:
        assert within_limit(result, job_id) is result
    else:
        with pytest.raises(ResultTooLarge, match="a smaller `output_format`, or for `response_format` `url`"):
            within_limit(result, job_id)


def inline_result(pictures: list[Image.Image], job: ImageJob) -> dict[str, Any]:
    encoded = [encode_image(p, "png", quality=90, made_from={"prompt": "ein Gemälde", "seed": 7}) for p in pictures]
    images = [{"b64_json": b64encode(data).decode(), "content_type": "image/png", "seed": 7} for data in encoded]
    return {"images": images, "parameters": job.parameters(), "warnings": ["first"]}


@pytest.mark.parametrize(
    ("written", "side", "comes_as"),
    [
        ({}, 1600, "jpg"),
        ({"output_format": "png"}, 1600, None),
        ({}, 400, "png"),
        ({"output_format": "webp"}, 400, "png"),
    ],
)
async def test_pictures_are_made_smaller_only_where_the_format_was_left_open(
    context: ParseContext, written: dict[str, Any], side: int, comes_as: str | None
) -> None:
    job = parse_job(Request(id="job-1", input={"prompt": "a sun", **written}), context)
    assert isinstance(job, ImageJob)
    noise = Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3))
    result = inline_result([noise, noise.rotate(90)], job)
    if comes_as is None:
        with pytest.raises(ResultTooLarge):
            within_limit(await made_to_fit(result, job), job.id)
        return
    fitting = within_limit(await made_to_fit(result, job), job.id)
    data = b64decode(fitting["images"][1]["b64_json"])
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size) == ({"jpg": "JPEG", "png": "PNG"}[comes_as], (side, side))
    if comes_as == "png":
        assert fitting is result
        return
    assert fitting["parameters"]["output_format"] == "jpg"
    assert fitting["images"][1]["content_type"] == "image/jpeg"
    assert fitting["images"][1]["sha256"] == hashlib.sha256(data).hexdigest()
    assert fitting["images"][1]["bytes"] == len(data)
    assert "ein Gemälde" in str(picture.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "ignore"))
    assert fitting["warnings"][0] == "first"
    assert "`output_format` was left open" in fitting["warnings"][1]
