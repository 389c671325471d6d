"""The whole way over HTTP, with a real worker and the bundled model: what a user of the gateway sees of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from PIL import Image

from flux_engine.job.edits.control import MAX_CONTROLS, ControlFields, ControlType
from flux_engine.logs import JsonLine, tell_subject
from flux_engine.models import catalog
from local_platform.server import Platform
from local_platform.workers import WorkerPool
from tests.gateway.world import World, world
from tests.generate.test_control import a_map, save_controlnet
from tests.servers import RedisProcess, fetched

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB: Final = {"prompt": "a red sun on the left over a lake", "width": 256, "height": 256, "seed": 7, "preview": True}
WATCHED: Final = JOB | {"steps": 50, "num_images": 4}  # over a second of steps on any machine: a preview is due
SMALL: Final[dict[str, Any]] = {"prompt": "a red sun on the left, a lake", "size": "128x128"}
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"


@dataclass(frozen=True, slots=True)
class System:
    gw: World
    pool: WorkerPool


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(shared_redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("whole")
    async with Platform() as platform, world(shared_redis.url, folder, platform=platform) as gw:
        environment = {
            "REDIS_URL": shared_redis.url,
            "CACHE_NAMESPACE": gw.gateway.settings.namespace,
            "FLUX_MODEL": "flux-tiny",
            "MODEL_VOLUME": str(folder / "volume"),
        }
        save_controlnet(folder / "volume" / "controlnets" / "union")
        async with WorkerPool(platform, environment=environment) as pool:
            await pool.start(1)
            yield System(gw, pool)


@pytest_asyncio.fixture(loop_scope="module")
async def client(system: System) -> AsyncIterator[AsyncOpenAI]:
    key = system.gw.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{system.gw.url}/v1", api_key=key, max_retries=0, timeout=300) as made:
        yield made


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def pixels(data: bytes) -> Any:
    return np.asarray(opened(data).convert("RGB")).astype(int)


async def events_of(gw: World, task_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Every event of a task until the gateway ends the stream."""
    found: list[tuple[str, dict[str, Any]]] = []
    async with gw.client.stream("GET", f"/task/{task_id}/events", timeout=600) as answer:
        name = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


async def test_create_watch_fetch_again_delete(system: System) -> None:
    gw = system.gw
    made = await gw.create(**WATCHED)
    told = await events_of(gw, made["task_id"])
    names = [name for name, _ in told]
    assert (names[0], names[-1]) == ("snapshot", "completed")
    progress = [data["progress"] for _, data in told if "progress" in data]
    assert progress == sorted(progress)
    preview = next(data["preview"] for name, data in told if name == "preview")
    shown = opened(base64.b64decode(preview.removeprefix("data:image/webp;base64,")))
    assert (shown.format, max(shown.size) <= 256) == ("WEBP", True)

    done = told[-1][1]
    image = done["result"]["images"][0]
    answer = await gw.client.get(image["url"])
    assert hashlib.sha256(answer.content).hexdigest() == image["sha256"]
    assert (opened(answer.content).size, answer.headers["content-type"]) == ((256, 256), "image/png")

    answer = await gw.post(f"/task/{made['task_id']}/again", json={"seed": 8, "steps": 2, "num_images": 1})
    second = answer.json()
    assert (answer.status_code, second["again_of"], second["seed"]) == (202, made["task_id"], 8)
    assert (await gw.until(second["task_id"], "completed", "failed"))["status"] == "completed"
    other = (await gw.get(f"/task/{second['task_id']}/result")).content
    assert np.abs(pixels(other) - pixels((await gw.client.get(image["url"])).content)).mean() > 1

    assert (await gw.delete(f"/task/{second['task_id']}?purge=1")).status_code == 200
    assert (await gw.get(f"/task/{second['task_id']}/result")).status_code == 410


async def test_one_trace_and_request_id_in_both_logs(system: System) -> None:
    gw, written = system.gw, io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLine())
    handler.addFilter(tell_subject)
    logger = logging.getLogger("flux_engine.gateway")
    logger.addHandler(handler)
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "order-4711", "Prefer": "wait=60"}
    try:
        answer = await gw.post("/generate-image", json=JOB | {"seed": 9, "steps": 1}, headers=headers)
    finally:
        logger.removeHandler(handler)
    task_id = answer.json()["task_id"]
    assert answer.headers["x-request-id"] == "order-4711"
    await gw.until(task_id, "completed")
    ours = [json.loads(line) for line in written.getvalue().splitlines()]
    assert ("order-4711", TRACE) in [(line.get("request_id"), line.get("trace_id")) for line in ours]
    lines = [json.loads(line) for line in system.pool.workers[0].lines if f'"{task_id}"' in line]
    assert {(line["request_id"], line["trace_id"]) for line in lines} == {("order-4711", TRACE)}


async def test_openai_generates_by_address_and_inline(client: AsyncOpenAI) -> None:
    extra = {"steps": 2, "seed": 7}
    by_url = await client.images.generate(**SMALL, n=2, response_format="url", extra_body=extra)
    inline = await client.images.generate(**SMALL, n=2, response_format="b64_json", extra_body=extra)
    assert by_url.data is not None
    assert inline.data is not None
    urls = [image.url for image in by_url.data if image.url is not None]
    files = [(await asyncio.to_thread(fetched, url))[1] for url in urls]  # without credentials
    assert files == [base64.b64decode(image.b64_json) for image in inline.data if image.b64_json is not None]
    assert [opened(data).size for data in files] == [(128, 128)] * 2


async def test_openai_edits_what_the_mask_leaves_open(client: AsyncOpenAI) -> None:
    picture = png(Image.new("RGB", (128, 128), (40, 90, 160)))
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    answer = await client.images.edit(
        image=picture, mask=png(mask), prompt="a red sun", size="128x128", response_format="b64_json",
        extra_body={"seed": 3, "steps": 4, "strength": 1.0},
    )  # fmt: skip
    assert answer.data is not None
    assert answer.data[0].b64_json is not None
    change = np.abs(pixels(base64.b64decode(answer.data[0].b64_json)) - pixels(picture)).mean(axis=(0, 2))
    assert change[:50].mean() < 5 < change[78:].mean()


async def test_a_picture_follows_a_map_by_what_the_documents_say_of_control(system: System) -> None:
    gw = system.gw
    schemas = (await gw.get("/capabilities")).json()["schemas"]["image"]
    takes = {name for name, schema in schemas.items() if "control" in schema["properties"]}
    assert takes == {spec.id for spec in catalog.CATALOG if spec.limits.takes_control}
    one, listed, _ = schemas["flux-tiny"]["properties"]["control"]["anyOf"]
    assert (listed["items"], listed["maxItems"]) == (one, MAX_CONTROLS)
    routes = (await gw.get("/openapi.json")).json()["paths"]
    for path in ("/generate-image", "/estimate"):
        body = routes[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        documented = body["properties"]["control"]["anyOf"][0]
        assert documented["properties"].keys() == one["properties"].keys() == ControlFields.model_fields.keys()
        kinds = list(get_args(ControlType))
        assert documented["properties"]["type"]["enum"] == one["properties"]["type"]["enum"] == kinds

    made = []
    for control in (None, {"type": "canny", "image": a_map()}, {"type": "canny", "image": a_map(25)}):
        task = await gw.create(**SMALL, seed=4, steps=2, control=control)
        done = await gw.until(task["task_id"], "completed", "failed")
        assert done["status"] == "completed", done
        made.append((await gw.get(f"/task/{task['task_id']}/result")).content)
    assert len(set(made)) == 3

    for model, control, field in (
        ("flux-tiny", {"type": "scribble", "image": a_map()}, "control.type"),
        ("flux-tiny-kontext", {"type": "canny", "image": a_map()}, "control"),
    ):
        refused = await gw.post("/generate-image", json=SMALL | {"model": model, "control": control})
        assert (refused.status_code, refused.json().get("field")) == (422, field), refused.text
    gradient = Image.linear_gradient("L")
    colours = png(Image.merge("RGB", [gradient.rotate(turn) for turn in (0, 90, 180)]))
    task = await gw.create(**SMALL, control={"type": "depth", "image": base64.b64encode(colours).decode()})
    failed = await gw.until(task["task_id"], "completed", "failed")
    assert (failed["status"], failed["error"]["field"]) == ("failed", "control[0].image")


async def test_a_hit_says_what_the_first_answer_said(system: System) -> None:
    """Of a prompt whose end the model did not read, without a worker as well."""
    gw, jobs = system.gw, len(system.gw.platform.endpoint.queue.jobs)
    asked = SMALL | {"prompt": "a red sun on the left over purple mountains, " * 8, "seed": 21, "steps": 1}
    made = await gw.create(**asked)
    first = await gw.until(made["task_id"], "completed", "failed")
    assert "is left out" in " ".join(first["warnings"])
    answer = await gw.post("/generate-image", json=asked)
    hit = answer.json()
    assert (answer.status_code, hit["cached"], hit["warnings"]) == (200, True, first["warnings"])
    assert len(gw.platform.endpoint.queue.jobs) == jobs + 1


async def test_the_same_prompt_with_all_workers_stopped(system: System) -> None:
    """The cache answers: at once, with the very bytes, without a job in the queue."""
    gw, jobs = system.gw, len(system.gw.platform.endpoint.queue.jobs)
    for worker in system.pool.workers:
        await worker.kill()
    answer = await gw.post("/generate-image", json=WATCHED | {"height": 256, "width": 256})
    said = answer.json()
    assert (answer.status_code, said["status"], said["cached"], said["work_used"]) == (200, "completed", True, 0)
    assert "total;dur=" in answer.headers["server-timing"]
    data = (await gw.get(f"/task/{said['task_id']}/result")).content
    assert hashlib.sha256(data).hexdigest() == said["result"]["images"][0]["sha256"]
    assert len(gw.platform.endpoint.queue.jobs) == jobs
