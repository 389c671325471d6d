"""Tokens, usage and numbers, as their reader sees them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from tests.gateway.world import SUN, World, world
from tests.servers import RedisProcess
from tests.web_server import server


async def test_a_token_does_what_its_key_may_and_no_more(gw: World) -> None:
    reader = await gw.key_of("report", frozenset(("read",)))
    answer = await gw.post("/auth/token", headers=reader)
    said = answer.json()
    assert (answer.status_code, said["token_type"], said["scope"]) == (200, "Bearer", "read")
    assert 0 < said["expires_in"] <= 900
    assert answer.headers["cache-control"] == "no-store"
    token = {"Authorization": f"Bearer {said['access_token']}"}
    assert (await gw.get("/tasks", headers=token)).status_code == 200
    refused = await gw.post("/generate-image", json=SUN, headers=token)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await gw.post("/auth/token", headers=token)).status_code == 403  # a token makes no token


async def test_usage_follows_a_task(gw: World) -> None:
    async def today() -> tuple[float, float]:
        said = (await gw.get("/usage")).json()
        window = next(window for window in said["work"] if window["name"] == "work-day")
        assert said["user"] == "ada"
        assert window["used"] + window["remaining"] == pytest.approx(window["quota"])
        return window["used"], said["tasks"]["in_flight"]

    assert await today() == (0, 0)
    made = await gw.create()
    job = await gw.hand.take()
    used, in_flight = await today()
    assert used == pytest.approx(made["work"], abs=0.001)
    assert in_flight == 1
    gw.hand.finish(job)
    done = await gw.until(made["task_id"], "completed")
    await gw.until_settled(made["task_id"])
    used, in_flight = await today()
    assert used == pytest.approx(done["work_used"], abs=0.001)
    assert in_flight == 0


async def test_an_estimate_takes_what_a_task_takes(gw: World) -> None:
    extras = {"priority": "low", "deadline_seconds": 60, "webhook": {"url": "https://hook.example/"}}
    answer = await gw.post("/estimate", json=SUN | extras)
    assert (answer.status_code, answer.json()["work"]) == (200, pytest.approx(128 * 128 / 2**20 * 2)), answer.text
    refused = await gw.post("/estimate", json=SUN | {"priority": "high"})
    assert (refused.status_code, refused.json()["field"]) == (422, "priority")


async def test_another_users_usage_is_ones_own(gw: World) -> None:
    await gw.create()
    said = (await gw.get("/usage", headers=await gw.key_of("eve"))).json()
    assert said["user"] == "eve"
    assert all(window["used"] == 0 for window in said["work"])


async def test_metrics_count_tasks_and_name_nobody(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    answer = await gw.client.get("/metrics", headers={"Authorization": ""})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    page = answer.text
    assert 'flux_gateway_tasks_total{status="completed",type="image"} 1.0' in page
    assert 'flux_gateway_requests_total{method="POST",route="/generate-image",status="202"} 1.0' in page
    for name in ("redis", "queue", "storage"):
        assert f'flux_gateway_dependency_up{{name="{name}"}} 1.0' in page
    assert re.search(r"^flux_gateway_work_total\{type=\"image\"\} 0\.03", page, re.MULTILINE)
    assert "ada" not in page
    assert made["task_id"] not in page


@pytest.mark.parametrize(("setting", "stranger", "user", "admin"), [("admin", 401, 403, 200), ("off", 404, 404, 404)])
async def test_who_may_read_metrics(
    setting: str, stranger: int, user: int, admin: int, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with world(shared_redis.url, tmp_path, GATEWAY_METRICS=setting) as gw:
        headers = ({"Authorization": ""}, gw.headers, await gw.key_of("root", frozenset(("admin",))))
        found = [(await gw.client.get("/metrics", headers=one)).status_code for one in headers]
        assert found == [stranger, user, admin]


async def test_ready_says_which_part_is_missing(redis: RedisProcess, tmp_path: Path) -> None:
    async with world(redis.url, tmp_path) as gw:
        ready = await gw.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"ready": True, "checks": {"redis": "ok", "queue": "ok", "storage": "ok"}},
        )
        redis.kill()
        missing = await gw.get("/readyz")
        assert (missing.status_code, missing.json()["checks"]["redis"]) == (503, "does not answer")
        assert (await gw.get("/healthz")).status_code == 200
        refused = await gw.post("/generate-image", json=SUN)
        assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (503, "unavailable", True)
        redis.start()


@pytest.mark.parametrize("way", ["full", "read-only"])
async def test_a_redis_that_takes_no_writes_takes_no_tasks(way: str, redis: RedisProcess, tmp_path: Path) -> None:
    async with world(redis.url, tmp_path) as gw:
        await redis.refuse_writes(way)
        missing = await gw.get("/readyz")
        assert (missing.status_code, missing.json()["checks"]["redis"]) == (503, "takes no writes")
        refused = await gw.post("/generate-image", json=SUN)
        assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (503, "unavailable", True)
        await redis.take_writes()
        assert (await gw.get("/readyz")).status_code == 200
        await gw.create()


async def test_a_folder_that_takes_no_files_is_no_storage(shared_redis: RedisProcess, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    async with world(shared_redis.url, tmp_path) as gw:
        assert (await gw.get("/readyz")).json()["checks"]["storage"] == "ok"
        assert not list(folder.iterdir())
        folder.rmdir()
        folder.write_bytes(b"")
        missing = await gw.get("/readyz")
        assert (missing.status_code, missing.json()["checks"]["storage"]) == (503, "takes no files")


async def test_an_endpoint_that_is_gone_is_a_queue_that_does_not_answer(
    shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with world(shared_redis.url, tmp_path, RUNPOD_ENDPOINT_ID="deleted") as gw:
        ready = await gw.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["queue"]) == (503, "does not answer")
        assert 'flux_gateway_dependency_up{name="queue"} 0.0' in (await gw.get("/metrics")).text


async def test_metrics_do_not_wait_for_a_queue_that_holds_its_calls(shared_redis: RedisProcess, tmp_path: Path) -> None:
    """A scrape that takes longer than Prometheus waits is lost, and the alert on the queue with it."""
    asked, may_answer = [], asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        asked.append(request.path)
        await may_answer.wait()
        return web.json_response({})

    async with (
        server(hold) as port,
        world(shared_redis.url, tmp_path, RUNPOD_ENDPOINT_BASE_URL=f"http://127.0.0.1:{port}") as gw,
    ):
        page = (await gw.get("/metrics")).text
        may_answer.set()
    assert 'flux_gateway_dependency_up{name="queue"} 0.0' in page
    assert len(asked) == 1
