"""The bucket is the one part that the gateway does not run: it may be away for a while, and no task is lost for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from flux_engine.gateway.tasks.pace import Pace
from local_platform.job import Job
from tests.gateway.tasks.test_kept import noise
from tests.gateway.world import QUICK, World, failure, picture, world
from tests.servers import RedisProcess
from tests.waiting import until
from tests.web_server import server


class Bucket:
    """An S3 server that can be away: it refuses every call, or holds it until `may_answer` is set."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.calls: Counter[str] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        data, path = await request.read(), request.path
        self.calls[request.method] += 1
        await self.may_answer.wait()
        if self.is_away:
            return web.Response(status=501)  # boto3 tries the others again, for seconds
        if request.method == "PUT":
            self.files[path] = data
            return web.Response()
        if request.method == "DELETE":
            self.files.pop(path, None)
            return web.Response(status=204)
        if path not in self.files:
            return web.Response(status=404)
        return web.Response(body=self.files[path])


@asynccontextmanager
async def with_bucket(
    redis_url: str, folder: Path, *, pace: Pace = QUICK, **more: str
) -> AsyncIterator[tuple[World, Bucket]]:
    bucket = Bucket()
    async with server(bucket.handle) as port:
        variables: dict[str, str] = {
            "BUCKET_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "BUCKET_NAME": "pictures",
            "BUCKET_ACCESS_KEY_ID": "key",
            "BUCKET_SECRET_ACCESS_KEY": "secret",
        }
        async with world(redis_url, folder, pace=pace, platform=None, **variables, **more) as gw:
            yield gw, bucket


async def test_a_task_whose_picture_cannot_be_read_now_waits_for_it(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with with_bucket(shared_redis.url, tmp_path, MAX_TASKS_IN_FLIGHT_PER_USER="1") as (gw, bucket):
        await gw.create()
        running = await gw.hand.take()
        sent = noise()
        made = await gw.create(image=sent, strength=0.5)
        bucket.is_away = True
        gw.hand.finish(running, error=failure("internal"))

        async def is_tried_again_or_over() -> bool:
            return bucket.calls["GET"] > 1 or (await gw.status(made["task_id"]))["status"] != "queued"

        await until(is_tried_again_or_over)
        assert (await gw.status(made["task_id"]))["status"] == "queued"
        bucket.is_away = False
        job = await gw.hand.take()
        assert job.payload["input"]["image"] == sent  # type: ignore[index]


async def test_a_bucket_that_holds_one_task_holds_no_other(shared_redis: RedisProcess, tmp_path: Path) -> None:
    """However often the task is due meanwhile, its result is stored once."""
    pace = replace(QUICK, at_once=3)
    async with with_bucket(shared_redis.url, tmp_path, pace=pace) as (gw, bucket):
        held, other = await gw.create(), await gw.create()
        jobs = {task_of(job): job for job in [await gw.hand.take(), await gw.hand.take()]}
        bucket.may_answer.clear()
        gw.hand.finish(jobs[held["task_id"]])
        await until(lambda: bucket.calls["PUT"] == 1)
        for _ in range(3):
            await gw.gateway.sweep.nudge(held["task_id"])
            await until(partial(is_taken_up, gw, held["task_id"]))
        gw.hand.finish(jobs[other["task_id"]], error=failure("internal"))
        assert (await gw.until(other["task_id"], "failed"))["status"] == "failed"
        assert bucket.calls["PUT"] == 1
        bucket.may_answer.set()
        assert (await gw.until(held["task_id"], "completed", "failed"))["status"] == "completed"


def task_of(job: Job) -> str:
    sent: Any = job.payload["input"]
    return str(sent["gateway"]["task_id"])


async def is_taken_up(gw: World, task_id: str) -> bool:
    """Whether the task is not due now."""
    due_at = await gw.gateway.redis.zscore(gw.gateway.ledger.keys.due, task_id)
    return due_at is not None and due_at > time.time()


async def test_a_file_that_cannot_be_read_now_is_not_said_to_be_gone(
    shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with with_bucket(shared_redis.url, tmp_path) as (gw, bucket):
        sent = noise()
        body = {"prompt": "a red sun", "seed": 6, "response_format": "b64_json"}
        asked: dict[str, Any] = {"json": body, "headers": {"Idempotency-Key": "one"}}
        made = await gw.create(image=sent, strength=0.5, seed=5)
        gw.hand.finish(await gw.hand.take())
        await gw.until(made["task_id"], "completed")
        asking = asyncio.create_task(gw.post("/v1/images/generations", **asked))
        gw.hand.finish(await gw.hand.take())
        assert (await asking).status_code == 200
    async with with_bucket(shared_redis.url, tmp_path, CACHE_NAMESPACE=gw.gateway.settings.namespace) as (gw, other):
        other.files |= bucket.files
        gw.client.headers |= await gw.key_of("ada")
        calls: dict[str, Any] = {
            f"/task/{made['task_id']}/result": gw.get,
            f"/task/{made['task_id']}/again": lambda path: gw.post(path, json={"seed": 6}),
            "/v1/images/generations": lambda path: gw.post(path, **asked),
        }
        other.is_away = True
        for path, call in calls.items():
            answer = await call(path)
            assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (
                502,
                "storage_failed",
                True,
            ), path
        assert f"`/task/{answer.headers['X-Task-ID']}/result`" in answer.text
        other.is_away = False
        assert (await gw.get(f"/task/{made['task_id']}/result")).content == picture(5, width=128, height=128)
        assert (await gw.post(f"/task/{made['task_id']}/again", json={"seed": 6})).status_code == 202
