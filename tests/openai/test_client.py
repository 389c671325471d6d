"""OpenAI's own client against a real worker on the local platform, by a base URL of RunPod's shape."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from PIL import Image

from flux_engine.models import catalog
from local_platform.server import API_KEY, Platform
from local_platform.workers import WorkerPool
from tests.models.tiny_models import tiny_model
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Process, fetched

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK: dict[str, Any] = {"prompt": "a red sun on the left, a lake", "size": "128x128", "model": "flux-tiny"}
STEPS = {"steps": 2, "seed": 7}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(s3: S3Process, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """A worker with the bundled model and, for references, klein's real classes, small and random."""
    volume = tmp_path_factory.mktemp("volume")
    tiny_model(catalog.FLUX_2_KLEIN_4B).save_pretrained(volume / "models" / "black-forest-labs--FLUX.2-klein-4B")
    environment = {
        "MODEL_VOLUME": str(volume),
        "BUCKET_ENDPOINT_URL": f"{s3.url}/pictures",
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
        "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
        "FLUX_MODEL": "flux-tiny",
    }
    async with Platform() as platform, WorkerPool(platform, environment=environment) as pool:
        await pool.start(1)
        yield platform


@pytest_asyncio.fixture(loop_scope="module")
async def client(platform: Platform) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=platform.openai_url, api_key=API_KEY, max_retries=0, timeout=300) as client:
        yield client


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels(data: bytes) -> Any:
    return np.asarray(opened(data).convert("RGB")).astype(int)


async def test_models(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert models[0].id == "flux-tiny"
    assert "black-forest-labs/FLUX.1-schnell" in [model.id for model in models]


async def test_generate_by_address(client: AsyncOpenAI) -> None:
    answer = await client.images.generate(**QUICK, n=2, extra_body=STEPS)
    assert answer.data is not None
    urls = [image.url for image in answer.data]
    files = [fetched(url)[1] for url in urls if url is not None]
    assert [opened(data).size for data in files] == [(128, 128)] * 2
    assert len({hashlib.sha256(data).hexdigest() for data in files}) == 2
    assert (answer.size, answer.output_format, answer.quality, answer.background) == (
        "128x128", "png", "medium", "opaque",
    )  # fmt: skip
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    assert answer.usage.model_extra is not None
    assert answer.usage.model_extra["work"] > 0


async def test_generate_inline(client: AsyncOpenAI) -> None:
    answer = await client.images.generate(
        **QUICK,
        response_format="b64_json",
        output_format="webp",
        output_compression=60,
        quality="low",
        extra_body={"seed": 7},
    )
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    assert opened(base64.b64decode(answer.data[0].b64_json)).format == "WEBP"
    assert (answer.output_format, answer.quality) == ("webp", "low")


async def test_a_seed_gives_the_same_picture_and_new_fields_are_taken(client: AsyncOpenAI) -> None:
    more = {**STEPS, "a_field_of_next_month": True}
    one, other = [
        await client.images.generate(**QUICK, response_format="b64_json", style="vivid", user="u", extra_body=more)
        for _ in range(2)
    ]
    assert one.data is not None
    assert other.data is not None
    assert one.data[0].b64_json == other.data[0].b64_json
    assert one.model_extra is not None
    warnings = one.model_extra["warnings"]
    assert any("a_field_of_next_month" in warning for warning in warnings)
    assert any("`style`" in warning for warning in warnings)


async def test_edit_a_picture(client: AsyncOpenAI) -> None:
    picture = png(Image.new("RGB", (128, 128), (40, 90, 160)))
    answer = await client.images.edit(
        image=picture, prompt="a red sun at night", size="128x128", response_format="b64_json",
        extra_body={**STEPS, "strength": 0.7},
    )  # fmt: skip
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    assert np.abs(pixels(base64.b64decode(answer.data[0].b64_json)) - pixels(picture)).mean() > 5


async def test_edit_with_two_references(client: AsyncOpenAI) -> None:
    red, blue = (png(Image.new("RGB", (96, 64), colour)) for colour in ("red", "blue"))
    asked: dict[str, Any] = {
        "prompt": "image 1 on image 2", "model": "FLUX.2-klein-4B", "size": "64x64", "response_format": "b64_json",
        "extra_body": {"seed": 3, "steps": 4, "max_sequence_length": 16, "cache": False},
    }  # fmt: skip
    answers = [
        await client.images.edit(image=pictures, **asked) for pictures in ([red, blue], [blue, red], [red], [red, blue])
    ]
    made = [answer.data[0].b64_json for answer in answers if answer.data is not None]
    assert made[0] == made[3]  # the same pictures in the same order
    assert len(set(made)) == 3
    with pytest.raises(openai.BadRequestError, match="takes up to 4") as raised:
        await client.images.edit(image=[red, blue] * 3, **asked)
    assert raised.value.param in ("image", "images")
    with pytest.raises(openai.BadRequestError, match="takes no `images`"):
        await client.images.edit(image=[red, blue], **asked | {"model": "flux-tiny"})


async def test_a_mask_repaints_what_is_transparent(client: AsyncOpenAI) -> None:
    picture = Image.new("RGB", (128, 128), (40, 90, 160))
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    answer = await client.images.edit(
        image=[png(picture)], mask=png(mask), prompt="a red sun", size="128x128", response_format="b64_json",
        extra_body={"seed": 3, "steps": 4, "strength": 1.0},
    )  # fmt: skip
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    change = np.abs(pixels(base64.b64decode(answer.data[0].b64_json)) - pixels(png(picture))).mean(axis=(0, 2))
    assert change[:50].mean() < 5 < change[78:].mean()


async def test_a_stream_ends_with_the_picture(client: AsyncOpenAI) -> None:
    stream = await client.images.generate(
        **{**QUICK, "size": "256x256"}, stream=True, partial_images=2, n=2, extra_body={"seed": 7, "steps": 40}
    )
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[-2:] == ["image_generation.completed"] * 2
    assert set(kinds[:-2]) <= {"image_generation.partial_image"}
    sizes = [opened(base64.b64decode(event.b64_json)).size for event in events]
    assert sizes[-2:] == [(256, 256)] * 2


async def test_a_large_stream_arrives_whole(client: AsyncOpenAI) -> None:
    stream = await client.images.generate(
        **{**QUICK, "size": "512x512"}, stream=True, extra_body={"seed": 7, "steps": 1, "output_format": "png", "n": 4}
    )
    events = [event async for event in stream]
    assert [opened(base64.b64decode(event.b64_json)).size for event in events] == [(512, 512)] * 4


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        ({"size": "5000x10"}, openai.BadRequestError, "size"),
        ({"n": 9}, openai.BadRequestError, "n"),
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
        ({"output_format": "gif"}, openai.BadRequestError, "output_format"),
        ({"extra_body": {"loras": ["no-such-lora"]}}, openai.BadRequestError, "loras"),
        ({"model": "FLUX.1-schnell"}, openai.InternalServerError, None),
    ],
)
async def test_errors_are_the_clients_own(
    client: AsyncOpenAI, asked: dict[str, Any], error: type[openai.APIStatusError], param: str | None
) -> None:
    with pytest.raises(error) as raised:
        await client.images.generate(**{**QUICK, **asked})
    assert raised.value.param == param
    assert raised.value.code in ("invalid_input", "model_unavailable")
    assert raised.value.message


async def test_an_unknown_route_and_a_bad_stream_are_errors(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="flux-tiny", messages=[{"role": "user", "content": "x"}])
    assert "/v1/images/generations" in raised.value.message
    with pytest.raises(openai.BadRequestError):
        await client.images.generate(**{**QUICK, "n": 9}, stream=True)


async def test_what_cannot_succeed_is_not_repeated(platform: Platform) -> None:
    before = {job.id for job in platform.endpoint.queue.jobs}  # some are forgotten after a minute
    async with AsyncOpenAI(base_url=platform.openai_url, api_key=API_KEY, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            await client.images.generate(**{**QUICK, "model": "FLUX.1-schnell"})
    assert len({job.id for job in platform.endpoint.queue.jobs} - before) == 1
