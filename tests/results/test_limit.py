"""The platform's size limits, kept before the platform sees a result."""

from __future__ import annotations

import hashlib
import io
import json
import random
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flux_engine.errors import ResultTooLarge
from flux_engine.job.base import ParseContext
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.media.marks.marker import Marks, Stamp
from flux_engine.media.marks.statement import Statement
from flux_engine.results.delivery import delivered
from flux_engine.results.entry import CacheEntry
from flux_engine.results.files import Origin, ResultFiles, picture_files
from flux_engine.results.folder import FolderStore
from flux_engine.results.limit import fitted
from flux_engine.results.result import ENVELOPE_BYTES, Account, Result, result_of
from flux_engine.results.store import put_all

ORIGIN = Origin(fingerprint="1" * 64, model={"id": "flux-tiny"}, content={}, prefix="")
ACCOUNT = Account(
    model={"id": "flux-tiny"}, cached=False, timings={"total_ms": 1}, usage={"work": 0}, warnings=("first",)
)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """As a worker without a bucket has it."""
    return FolderStore(tmp_path / "results", has_urls=False)


def image_job(context: ParseContext, identity: str = "job-1", **written: Any) -> ImageJob:
    job = parse_job(Request(id=identity, input={"prompt": "ein Gem\u00e4lde", "seed": 7, **written}), context)
    assert isinstance(job, ImageJob)
    return job


def noise(side: int) -> Image.Image:
    return Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3))


async def inline_result(files: ResultFiles, job: ImageJob, store: FolderStore) -> Result:
    return result_of(job, await delivered(files, store, "b64_json"), ACCOUNT)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_the_size_is_known_before_a_byte_is_base64(context: ParseContext, store: FolderStore, count: int) -> None:
    job = image_job(context, num_images=count, metadata={"\u00e4": "\U0001f31e"})
    files = await picture_files([noise(17 + i) for i in range(count)], job, ORIGIN)
    result = await inline_result(files, job, store)
    text = json.dumps(result.to_json(), allow_nan=False, ensure_ascii=False)
    assert result.size_bytes() == len(text.encode()) + ENVELOPE_BYTES


@pytest.mark.parametrize(
    ("job_id", "megabytes", "fits"), [("a", 9.9, True), ("a", 10, False), ("sync-a", 19.9, True), ("sync-a", 20, False)]
)
async def test_a_result_over_the_limit_is_refused_with_the_way_out(
    context: ParseContext, store: FolderStore, job_id: str, megabytes: float, fits: bool
) -> None:
    job = image_job(context, job_id, output_format="png")
    files = await picture_files([noise(16)], job, ORIGIN)
    result = Result(facts=(await inline_result(files, job, store)).facts, inline=(bytes(int(megabytes * 0.75e6)),))
    if fits:
        assert await fitted(result, files, job, store) is result
    else:
        with pytest.raises(ResultTooLarge, match="a smaller `output_format`, or for `response_format` `url`"):
            await fitted(result, files, job, store)


@pytest.mark.parametrize("is_hit", [False, True])
@pytest.mark.parametrize(
    ("written", "side", "comes_as"),
    [
        ({}, 1600, "jpg"),
        ({"output_format": "png"}, 1600, None),
        ({}, 400, "png"),
    ],
)
async def test_pictures_are_made_smaller_only_where_the_format_was_left_open(
    context: ParseContext, store: FolderStore, written: dict[str, Any], side: int, comes_as: str | None, is_hit: bool
) -> None:
    job = image_job(context, num_images=2, **written)
    picture = noise(side)
    files = await picture_files([picture, picture.rotate(90)], job, ORIGIN)
    if is_hit:
        await put_all(store, files.at_hand)
        files = ResultFiles(CacheEntry.model_validate(files.entry.model_dump()))
    result = await inline_result(files, job, store)
    if comes_as is None:
        with pytest.raises(ResultTooLarge):
            await fitted(result, files, job, store)
        return
    fitting = await fitted(result, files, job, store)
    answer = fitting.to_json()
    data = b64decode(answer["images"][1]["b64_json"])
    shown = Image.open(io.BytesIO(data))
    assert (shown.format, shown.size) == ({"jpg": "JPEG", "png": "PNG"}[comes_as], (side, side))
    if comes_as == "png":
        assert fitting is result
        return
    assert answer["parameters"]["output_format"] == "jpg"
    assert answer["images"][1]["content_type"] == "image/jpeg"
    assert answer["images"][1]["sha256"] == hashlib.sha256(data).hexdigest()
    assert answer["images"][1]["bytes"] == len(data)
    assert (answer["images"][0]["seed"], answer["images"][1]["seed"]) == (7, 8)
    assert "ein Gem\u00e4lde" in str(shown.getexif().get_ifd(0x8769)[0x9286].decode("utf-16-be", "ignore"))
    assert answer["warnings"][0] == "first"
    assert "`output_format` was left open" in answer["warnings"][1]


async def test_a_result_over_the_limit_comes_by_links_where_the_store_has_them(
    context: ParseContext, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "outputs")
    job = image_job(context, num_images=2, output_format="png")
    files = await picture_files([noise(1400), noise(1400)], job, ORIGIN)
    answer = (await fitted(await inline_result(files, job, store), files, job, store)).to_json()
    assert [Path(image["url"].removeprefix("file://")).stat().st_size for image in answer["images"]] == [
        image["bytes"] for image in answer["images"]
    ]
    assert answer["parameters"]["response_format"] == "url"
    assert "links came instead" in answer["warnings"][1]


async def test_the_jpeg_of_a_marked_picture_is_marked(context: ParseContext, store: FolderStore) -> None:
    stamp = Stamp(Marks(), Statement(model="flux-tiny", revision="r", is_composite=False))
    job = image_job(context, num_images=3)
    files = await picture_files([noise(1400)] * 3, job, replace(ORIGIN, stamp=stamp))
    result = await fitted(await inline_result(files, job, store), files, job, store)
    assert result.facts["images"][0]["content_type"] == "image/jpeg"
    assert all(stamp.statement.source_uri.encode() in data for data in result.inline)
