"""Jobs that bring pictures, with the bundled model: redrawn, repainted, and first frames."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from builder.flux_tiny.landscapes import paint
from builder.flux_tiny.scenes import Scene
from builder.flux_tiny.score import disc, disc_colour, time_of_day
from flux_engine.errors import InputFetchFailed
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.lora_store import LoraLimits, LoraStore
from flux_engine.inputs.pictures import PictureSource
from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.net.fetch import Fetcher
from flux_engine.progress import Update
from flux_engine.worker.worker import Worker
from tests.inputs.lora_bytes import lora_bytes
from tests.web_server import loopback, own_certificate, server

DAY = paint(Scene("day", "yellow", "large", "left", "hills", "green", "meadow", False, 3), 256, 256)
PROMPT = "night, a large white moon on the right, blue mountains, a snowfield"


def base64_of(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def job(**fields: Any) -> dict[str, Any]:
    shared = {"prompt": PROMPT, "seed": 5, "image": base64_of(DAY), "cache": False, "num_inference_steps": 12}
    return {"id": "job-1", "input": shared | fields}


def picture_of(result: dict[str, Any]) -> Image.Image:
    assert "error" not in result, result
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


async def test_strength_says_how_much_is_redrawn(worker: Worker) -> None:
    faint = await worker.run(job(strength=0.1))
    strong = picture_of(await worker.run(job(strength=1)))
    assert difference(picture_of(faint), DAY) < 12 < difference(strong, DAY)
    assert time_of_day(strong) == "night"
    assert time_of_day(picture_of(faint)) == "day"
    assert (faint["parameters"]["strength"], faint["parameters"]["mask"]) == (0.1, None)
    assert faint["parameters"]["image"].startswith("base64 of ")


async def test_only_what_the_mask_leaves_white_changes(worker: Worker) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    result = await worker.run(job(mask=base64_of(mask), prompt="day, a large red sun on the right", strength=1))
    made = picture_of(result)
    left, right = (0, 0, 112, 256), (144, 0, 256, 256)  # the mask's edge is soft where it was enlarged
    assert made.crop(left).tobytes() == DAY.crop(left).tobytes()
    assert difference(made.crop(right), DAY.crop(right)) > 4


async def test_the_same_picture_gives_the_same_bytes_and_another_gives_others(worker: Worker) -> None:
    first = await worker.run(job(strength=0.6, cache=True))
    again = await worker.run(job(strength=0.6, cache=True, image=f"DATA:image/png;base64,{base64_of(DAY)}"))
    other = await worker.run(job(strength=0.6, cache=True, image=base64_of(DAY.rotate(180))))
    assert (first["cached"], again["cached"], other["cached"]) == (False, True, False)
    assert first["images"][0]["sha256"] == again["images"][0]["sha256"] != other["images"][0]["sha256"]


async def test_what_of_a_picture_is_not_used_is_said_of_a_made_result_and_of_a_reused_one(worker: Worker) -> None:
    buffer = io.BytesIO()
    DAY.resize((64, 64)).save(
        buffer, "PNG", icc_profile=bytes(500), save_all=True, append_images=[DAY.resize((64, 64))]
    )
    asked = job(image=base64.b64encode(buffer.getvalue()).decode(), cache=True, num_inference_steps=2, size="64x64")
    made, reused = await worker.run(asked), await worker.run(asked)
    assert (made["cached"], reused["cached"]) == (False, True)
    assert made["warnings"] == reused["warnings"]
    assert ["animated" in made["warnings"][0], "colour profile" in made["warnings"][1]] == [True, True]


async def test_progress_counts_the_steps_that_are_run(worker: Worker) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    await worker.run(job(strength=0.5, preview=True, num_images=2), send, min_interval_s=0)
    steps = [update for update in updates if update.get("step")]
    assert {update["total_steps"] for update in steps} == {2 * 6}
    assert max(update["step"] for update in steps) == 12
    assert any("preview" in update for update in updates)


async def test_a_prompt_alone_paints_the_same_before_and_after(worker: Worker) -> None:
    plain = {"id": "job-1", "input": {"prompt": PROMPT, "seed": 5, "cache": False, "num_inference_steps": 4}}
    before = picture_of(await worker.run(plain))
    await worker.run(job(strength=0.4))
    assert picture_of(await worker.run(plain)).tobytes() == before.tobytes()


async def test_a_video_begins_with_its_image(worker: Worker) -> None:
    fields = {"num_frames": 3, "strength": 0.1, "motion": {"zoom": 1.01}, "output_format": "webp"}
    result = await worker.run(job(**fields, num_inference_steps=8, prompt="day, a yellow sun on the left, a meadow"))
    assert "error" not in result, result
    clip = Image.open(io.BytesIO(base64.b64decode(result["video"]["b64_json"])))
    assert difference(clip.convert("RGB"), DAY) < 6
    found = disc(clip.convert("RGB"))
    assert found is not None
    assert disc_colour(found) == "yellow"


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"image": "bm90IGEgcGljdHVyZQ=="}, "invalid_input", "image"),
        ({"image": "https://10.0.0.1/sun.png"}, "input_fetch_failed", "image"),
        ({"mask": "bm90IGEgcGljdHVyZQ=="}, "invalid_input", "mask"),
        ({"image": None, "mask": "QUFB"}, "invalid_input", "mask"),
        ({"image": None, "strength": 0.5}, "invalid_input", "strength"),
        ({"strength": 0}, "invalid_input", "strength"),
        ({"strength": 1.1}, "invalid_input", "strength"),
        ({"image": 5}, "invalid_input", "image"),
        ({"image": "A" * 28_000_001}, "input_fetch_failed", "image"),
        ({"image": ""}, "invalid_input", "image"),
        ({"model": "FLUX.1-Fill-dev"}, "invalid_input", "mask"),
        ({"model": "FLUX.2-dev", "mask": "QUFB"}, "invalid_input", "mask"),
        ({"num_frames": 4, "mode": "interpolate"}, "invalid_input", "image"),
        ({"num_frames": 4, "mode": "feedback", "mask": "QUFB"}, "invalid_input", "mask"),
    ],
)
async def test_pictures_that_do_not_fit_are_refused(
    worker: Worker, fields: dict[str, Any], code: str, field: str
) -> None:
    error = json.loads((await worker.run(job(**fields)))["error"])
    assert (error["code"], error["field"]) == (code, field)


@pytest.mark.parametrize("what_is_refused", ["lora", "image"])
async def test_a_refused_input_ends_the_other_downloads_of_its_job(
    context: ParseContext, tmp_path: Path, what_is_refused: str
) -> None:
    begun, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def handle(request: web.Request) -> web.StreamResponse:
        if "missing" in request.path:
            for _ in range(2):
                await begun.acquire()
            return web.Response(status=404)
        answer = web.StreamResponse()
        await answer.prepare(request)
        begun.release()
        try:
            while True:
                await answer.write(bytes(1000))
                await asyncio.sleep(0.01)
        finally:
            ended.release()

    serving, trusting = own_certificate(tmp_path, "files.example")
    async with server(handle, tls=serving) as port:
        url = f"https://files.example:{port}"
        loras = LoraStore(
            tmp_path / "loras",
            fetcher=Fetcher(allow_private=True, resolve=loopback, tls=trusting),
            limits=LoraLimits(max_file_bytes=10**9, max_cache_bytes=10**9),
            sites=LoraSites(hosts=("files.example",)),
        )
        pictures = PictureSource(Fetcher(allow_private=True, resolve=loopback, tls=trusting))
        asked: dict[str, Any] = {"prompt": "a sun", "loras": [f"{url}/{number}.safetensors" for number in range(2)]}
        if what_is_refused == "lora":
            asked["loras"].append(f"{url}/missing.safetensors")
        else:
            asked["image"] = f"{url}/missing.png"
        with pytest.raises(InputFetchFailed, match="404"):
            await InputFetcher(loras, pictures).fetch(parse_job(Request(id="job-1", input=asked), context))
        async with asyncio.timeout(20):
            for _ in range(2):
                await ended.acquire()
    assert list((tmp_path / "loras" / ".cache" / "partial").iterdir()) == []


async def test_what_is_here_is_no_download(context: ParseContext, tmp_path: Path) -> None:
    """Whoever prepares a job is told before it turns slow, and is not where everything is at hand."""
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "here.safetensors").write_bytes(b"a LoRA")

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=lora_bytes())

    serving, trusting = own_certificate(tmp_path, "files.example")
    async with server(handle, tls=serving) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback, tls=trusting)
        loras = LoraStore(
            tmp_path / "loras",
            fetcher=fetcher,
            limits=LoraLimits(max_file_bytes=10**9, max_cache_bytes=10**9),
            sites=LoraSites(hosts=("files.example",)),
        )
        inputs = InputFetcher(loras, PictureSource(fetcher))

        async def downloads(**fields: Any) -> int:
            told: list[str] = []
            asked = parse_job(Request(id="job-1", input={"prompt": "a sun", **fields}), context)
            await inputs.fetch(asked, before_download=lambda: told.append("downloading"))
            return len(told)

        url = f"https://files.example:{port}/a.safetensors"
        assert await downloads(image=base64_of(DAY), loras=["here"]) == 0
        assert await downloads(loras=[url]) == 1
        assert await downloads(loras=[url]) == 0  # kept from the first time


async def test_aliases_of_pictures(worker: Worker) -> None:
    renamed = {"image": None, "init_image": base64_of(DAY), "prompt_strength": 0.3, "num_inference_steps": 4}
    plain = await worker.run(job(strength=0.3, num_inference_steps=4))
    assert picture_of(await worker.run(job(**renamed))).tobytes() == picture_of(plain).tobytes()
