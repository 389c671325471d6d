"""References on their way in: fetched side by side, kept in order, hashed, and bounded in their sum."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from flux_engine.errors import ClientError, InputFetchFailed
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.lora_store import LoraLimits, LoraStore
from flux_engine.inputs.pictures import MAX_SUM_BYTES, MAX_SUM_PIXELS, PictureSource, PictureSum
from flux_engine.job.base import Job
from flux_engine.job.parse import Request, parse_job
from flux_engine.models.catalog import FLUX_2_DEV
from flux_engine.net.fetch import Fetcher
from tests.conftest import context_for
from tests.web_server import loopback, own_certificate, server


def png(colour: str, size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def job(images: list[str]) -> Job:
    asked = {"prompt": "image 1 beside image 2", "model": FLUX_2_DEV.id, "images": images}
    return parse_job(Request(id="job-1", input=asked), context_for(FLUX_2_DEV))


def inputs_of(folder: Path, fetcher: Fetcher) -> InputFetcher:
    limits = LoraLimits(max_file_bytes=10**9, max_cache_bytes=10**9)
    loras = LoraStore(folder / "loras", fetcher=fetcher, limits=limits, sites=LoraSites(hosts=("files.example",)))
    return InputFetcher(loras, PictureSource(fetcher))


async def test_they_are_fetched_side_by_side_and_stay_in_order(tmp_path: Path) -> None:
    colours = ["red", "lime", "blue", "white"]
    begun, all_begun = list[str](), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        """Answers nobody before everybody has asked, and the first one last."""
        colour = request.path.strip("/").removesuffix(".png")
        begun.append(colour)
        if len(begun) == len(colours):
            all_begun.set()
        await all_begun.wait()
        return web.Response(body=png(colour))

    serving, trusting = own_certificate(tmp_path, "files.example")
    async with server(handle, tls=serving) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback, tls=trusting)
        urls = [f"https://files.example:{port}/{colour}.png" for colour in colours]
        asked = job([*urls, text(png("black"))])
        async with asyncio.timeout(30):
            found = await inputs_of(tmp_path, fetcher).fetch(asked)

    seen = [picture.getpixel((0, 0)) for picture in found.pictures.references]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    hashes = tuple(hashlib.sha256(png(colour)).hexdigest() for colour in [*colours, "black"])
    assert found.content(asked) == {"images": hashes}


async def test_their_pixels_are_bounded_together(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, Fetcher())
    large = text(png("red", (3_900, 4_000)))
    assert len((await inputs.fetch(job([large] * 3))).pictures.references) == 3
    with pytest.raises(InputFetchFailed, match="more than 48 megapixels together") as refused:
        await inputs.fetch(job([large] * 4))
    assert (refused.value.field, refused.value.retryable) == ("images", False)


@pytest.mark.parametrize("size", [MAX_SUM_BYTES // 4, MAX_SUM_BYTES // 4 + 1])
def test_their_bytes_are_bounded_together(size: int) -> None:
    sum_ = PictureSum()
    for index in range(3):
        sum_.add(bytes(size), f"images[{index}]")
    if 4 * size <= MAX_SUM_BYTES:
        sum_.add(bytes(size), "images[3]")
        return
    with pytest.raises(InputFetchFailed, match="more than 60 MB together") as refused:
        sum_.add(bytes(size), "images[3]")
    assert refused.value.field == "images"
    assert MAX_SUM_PIXELS > 2 * 16_000_000  # a picture and its mask, each as large as may be


@pytest.mark.parametrize(
    ("images", "code", "field"),
    [
        ([text(png("red")), "not base64!"], "invalid_input", "images[1]"),
        ([text(b"GIF89a no picture"), text(png("red"))], "invalid_input", "images[0]"),
        ([text(png("red")), text(png("red")[:60])], "invalid_input", "images[1]"),
        ([text(png("red")), "https://10.0.0.1/sun.png"], "input_fetch_failed", "images[1]"),
        ([text(png("red")), "http://example.com/sun.png"], "invalid_input", "images[1]"),
        ([text(png("red")), "sun.png"], "invalid_input", "images[1]"),
        ([text(png("red", (5_000, 4_000)))], "input_fetch_failed", "images[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_bad_one_is_named(tmp_path: Path, images: list[str], code: str, field: str) -> None:
    with pytest.raises(ClientError) as refused:
        await inputs_of(tmp_path, Fetcher()).fetch(job(images))
    assert (refused.value.code, refused.value.field) == (code, field)
