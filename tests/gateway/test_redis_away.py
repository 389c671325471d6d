"""What clients hear while Redis does not answer: of a task that was made, never that nothing was done."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.gateway.limits.line import FairLine
from flux_engine.gateway.task import Task
from tests.gateway.world import SUN, World, picture, world
from tests.servers import RedisProcess
from tests.waiting import until


async def test_a_task_whose_place_cannot_be_told_is_accepted_and_told_of(
    gw: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(line: FairLine, task_id: str) -> int | None:
        raise CacheAway("result cache unreachable")

    monkeypatch.setattr(FairLine, "position", away)
    made = await gw.create()
    assert made["status"] == "queued"
    assert (await gw.status(made["task_id"]))["status"] in ("queued", "processing")
    assert [task["task_id"] for task in (await gw.get("/tasks")).json()["tasks"]] == [made["task_id"]]


async def test_a_task_that_may_have_begun_is_said_to_and_its_repetition_is_the_same(
    gw: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux_engine.gateway.tasks.ledger.beginnings.FIRST_LOOK_S", 0.2)
    beginnings = gw.gateway.ledger.beginnings
    create = beginnings.create

    async def unanswered(*arguments: Any, **more: Any) -> None:
        await create(*arguments, **more)
        raise RedisConnectionError

    monkeypatch.setattr(beginnings, "create", unanswered)
    sent: dict[str, Any] = {"json": SUN, "headers": {"Idempotency-Key": "one"}}
    refused = await gw.post("/generate-image", **sent)
    monkeypatch.undo()
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "may have begun" in refused.json()["detail"]
    repeated = await gw.post("/generate-image", **sent)
    assert (repeated.status_code, repeated.headers["Idempotency-Replayed"]) == (202, "true")
    gw.hand.finish(await gw.hand.take())
    await gw.until_settled(repeated.json()["task_id"])
    assert len(gw.platform.endpoint.queue.jobs) == 1
    (_, day) = (await gw.get("/usage")).json()["work"]
    assert day["used"] == pytest.approx(repeated.json()["work"], abs=0.001)


@pytest.mark.parametrize("way", ["prefer", "openai", "stream", "result"])
async def test_whoever_waits_goes_on_waiting_until_redis_is_back(
    way: str, redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux_engine.gateway.gateway.LISTEN_S", 0.2)
    monkeypatch.setattr("flux_engine.gateway.tasks.ledger.agenda.LEASE_S", 0.2)
    async with world(redis.url, tmp_path) as gw:
        asking = asyncio.create_task(_waits(gw, way))
        job = await gw.hand.take()
        (listed,) = (await gw.get("/tasks")).json()["tasks"]
        await gw.until_submitted(listed["task_id"])
        looked, awaited = asyncio.Event(), gw.gateway.ledger.awaited

        async def noted(task: Task) -> Task | None:
            found = await awaited(task)
            looked.set()
            return found

        await until(lambda: gw.gateway.hub.count("ada") == 1)
        monkeypatch.setattr(type(gw.gateway.ledger), "awaited", lambda _, task: noted(task))
        redis.kill()
        looked.clear()
        if way != "stream":  # which looks when it hears of something
            await looked.wait()
        redis.start()
        gw.hand.finish(job)
        assert await asking == picture(5)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_request_that_a_restart_cuts_off_is_told_of_its_task(gw: World, is_streamed: bool) -> None:
    asked = {"prompt": "a red sun", "seed": 5, "response_format": "b64_json", "stream": is_streamed}
    asking = asyncio.create_task(gw.post("/v1/images/generations", json=asked))
    job = await gw.hand.take()
    await until(lambda: gw.gateway.hub.count("ada") == 1)
    gw.gateway.hub.close()
    answer = await asking
    task_id = answer.headers["X-Task-ID"]
    assert (answer.status_code, f"`/task/{task_id}/result`" in answer.text) == (200 if is_streamed else 503, True)
    gw.hand.finish(job)
    await gw.until(task_id, "completed")
    assert (await gw.get(f"/task/{task_id}/result")).content == picture(5)


async def _waits(gw: World, way: str) -> bytes:
    """The picture, asked for in one request that waits for it."""
    asked: dict[str, Any] = {"prompt": "a red sun", "seed": 5}
    if way == "prefer":
        answer = await gw.post("/generate-image", json=asked, headers={"Prefer": "wait=300"})
        return (await gw.get(answer.json()["result_url"])).content
    if way == "result":
        made = (await gw.post("/generate-image", json=asked)).json()
        return (await gw.get(f"{made['result_url']}?wait=60")).content
    asked |= {"response_format": "b64_json", "stream": way == "stream"}
    answer = await gw.post("/v1/images/generations", json=asked)
    if way == "stream":
        (said,) = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        return base64.b64decode(json.loads(said.removeprefix("data: "))["b64_json"])
    return base64.b64decode(answer.json()["data"][0]["b64_json"])
