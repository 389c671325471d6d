"""What a task was made from: words in Redis, pictures in the store, together again at the worker."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image

from flux_engine.gateway.tasks.kept import LONG, KeptInputs
from flux_engine.results.folder import FolderStore
from tests.gateway.world import SUN, World, world
from tests.servers import RedisProcess

TASK: Final = "00000000-0000-4000-8000-000000000001"
TEXT: Final = "x" * (LONG + 1)
INPUTS: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "words": ({"prompt": "a", "metadata": {"a": [1, None]}}, 0),
    "a picture": ({"prompt": "a", "image": TEXT}, 1),
    "several": ({"images": [TEXT, "https://example.com/a.png", TEXT + "y"], "mask": TEXT + "z"}, 3),
    "within": ({"control": [{"type": "canny", "image": TEXT}], "loras": [{"path": TEXT + "w", "scale": 1}]}, 2),
    "too deep to be a field": ({"metadata": {"a": {"b": {"c": {"d": TEXT}}}}}, 0),
    "one that looks packed": ({"given": {"a": 1}, "apart": [{"at": ["a"], "key": "k"}]}, 0),
}


def noise(size: int = 160) -> str:
    """A picture that does not shrink, in base64."""
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 90).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.txt"))


async def noted(task_id: str, keys: Iterable[str]) -> None:
    """No task is made of it here."""


@pytest.mark.parametrize("name", INPUTS)
async def test_packed_and_unpacked(name: str, tmp_path: Path) -> None:
    given, apart = INPUTS[name]
    kept = KeptInputs(FolderStore(tmp_path, has_urls=False), note=noted)
    held = await kept.packed(TASK, given)
    assert len(files(tmp_path)) == len(held["apart"]) == apart
    assert apart == 0 or TEXT not in str(held)
    assert await kept.unpacked(held) == given
    await kept.forget(held)
    assert files(tmp_path) == []
    assert await kept.unpacked(held) == (given if apart == 0 else None)


async def test_lone_surrogates_are_dropped(tmp_path: Path) -> None:
    """No queue can send them: a job that holds one would never leave the line."""
    kept = KeptInputs(FolderStore(tmp_path, has_urls=False), note=noted)
    given = {"prompt": "a red \ud800sün", "metadata": {"\udc80": ["\udfff"]}, "image": TEXT + "\ud800"}
    held = await kept.packed(TASK, given)
    assert await kept.unpacked(held) == {"prompt": "a red sün", "metadata": {"": [""]}, "image": TEXT}


async def test_a_job_with_lone_surrogates_reaches_its_worker(gw: World) -> None:
    broken = {"prompt": "a red \ud800sun", "image": noise() + "\udfff", "strength": 0.5, "metadata": {"a": "\ud800b"}}
    made = await gw.post("/generate-image", content=json.dumps(broken), headers={"Content-Type": "application/json"})
    assert made.status_code == 202, made.text
    job = await gw.hand.take()
    sent: Any = job.payload["input"]
    assert (sent["prompt"], sent["metadata"]) == ("a red sun", {"a": "b"})
    gw.hand.finish(job)
    assert (await gw.until(made.json()["task_id"], "completed"))["metadata"] == {"a": "b"}


async def test_a_picture_reaches_the_worker_and_again_and_not_redis(gw: World, tmp_path: Path) -> None:
    picture = noise()
    made = await gw.create(image=picture, strength=0.5, seed=5)
    held = await gw.gateway.ledger.input(made["task_id"])
    assert picture not in str(held)
    job = await gw.hand.take()
    assert job.payload["input"]["image"] == picture  # type: ignore[index]
    gw.hand.finish(job)
    await gw.until(made["task_id"], "completed")
    answer = await gw.post(f"/task/{made['task_id']}/again", json={"strength": 0.9})
    assert answer.status_code == 202
    second = await gw.hand.take()
    sent: Any = second.payload["input"]
    assert (sent["image"], sent["strength"]) == (picture, 0.9)
    gw.hand.finish(second)
    await gw.until(answer.json()["task_id"], "completed")
    assert len(files(tmp_path)) == 2
    await gw.delete(f"/task/{made['task_id']}?purge=1")
    assert len(files(tmp_path)) == 1
    gone = await gw.post(f"/task/{made['task_id']}/again", json={})
    assert (gone.status_code, gone.json()["code"]) == (410, "expired")


async def test_the_picture_of_a_refused_task_is_not_kept(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with world(
        shared_redis.url, tmp_path, MAX_TASKS_IN_FLIGHT_PER_USER="1", MAX_TASKS_WAITING_PER_USER="1"
    ) as gw:
        await gw.create()
        running = await gw.hand.take()
        await gw.create()
        body = SUN | {"image": noise(), "strength": 0.5}
        assert (await gw.post("/generate-image", json=body)).status_code == 429
        assert files(tmp_path) == []
        gw.hand.finish(running)
        gw.hand.finish(await gw.hand.take())
        again = await gw.post("/generate-image", json=body)  # as a client does, without a key
        assert again.status_code == 202, again.text


async def test_two_requests_of_one_key_keep_one_picture(gw: World, tmp_path: Path) -> None:
    body, headers = SUN | {"image": noise(), "strength": 0.5}, {"Idempotency-Key": "one"}
    answers = await asyncio.gather(*(gw.post("/generate-image", json=body, headers=headers) for _ in range(4)))
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert len(files(tmp_path)) == 1


async def test_a_job_with_a_picture_is_no_hit_for_one_without(gw: World) -> None:
    from flux_engine.job.fingerprint import ModelIdentity

    await gw.gateway.offers.notices.makes(ModelIdentity(id="flux-tiny", revision="r", precision="float32"))
    made = await gw.create(image=noise(), strength=0.5, seed=5)
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    assert (await gw.post("/generate-image", json=SUN | {"seed": 5})).status_code == 202
