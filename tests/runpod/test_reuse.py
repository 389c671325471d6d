"""A job that was made an hour ago, sent again to a worker that has just started: the real handler with S3 and Redis."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from local_platform.job import Job, Status
from local_platform.server import Platform
from tests.runpod.pool import LoggedPool
from tests.servers import ACCESS_KEY, SECRET_KEY, RedisProcess, S3Process, fetched

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUN = {"prompt": "a red sun on the left over purple mountains", "seed": 7, "num_inference_steps": 4}


@dataclass(frozen=True, slots=True)
class Endpoint:
    platform: Platform
    pool: LoggedPool
    redis: RedisProcess

    async def run(self, **fields: Any) -> Job:
        job = self.platform.endpoint.submit({"input": {**SUN, **fields}})
        return await self.platform.endpoint.finished(job.id)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="live")
async def _live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Endpoint]:
    redis, s3 = RedisProcess(tmp_path_factory.mktemp("redis")), S3Process(tmp_path_factory.mktemp("s3"))
    redis.start()
    s3.start()
    environment = {
        "REDIS_URL": redis.url,
        "BUCKET_ENDPOINT_URL": f"{s3.url}/pictures",
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
        "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
        "MODEL_VOLUME": str(tmp_path_factory.mktemp("volume")),
    }
    try:
        async with Platform() as platform, LoggedPool(platform, environment=environment) as pool:
            await pool.start()
            yield Endpoint(platform, pool, redis)
    finally:
        redis.kill()
        s3.kill()


def picture(job: Job) -> bytes:
    """The picture of a job that must have succeeded, fetched from its URL as a client would."""
    assert job.status is Status.COMPLETED, job.result
    output: Any = job.result["output"]
    (image,) = output["images"]
    assert image["url"].count("X-Amz-Signature=") == 1
    status, data, headers = fetched(image["url"])
    assert (status, headers["content-type"]) == (200, image["content_type"])
    assert hashlib.sha256(data).hexdigest() == image["sha256"]
    return data


async def aged(redis: RedisProcess, by: timedelta) -> None:
    """Make every cached result older."""
    async with Redis.from_url(redis.url) as client:
        for key in await client.keys("*:entry"):
            entry = json.loads(await client.get(key) or b"")
            entry["created_at"] = (datetime.now(UTC) - by).isoformat()
            assert await client.set(key, json.dumps(entry), keepttl=True)


async def test_a_worker_that_has_just_started_answers_from_the_cache_without_torch(live: Endpoint) -> None:
    made = await live.run()
    first: Any = made.result["output"]
    assert first["cached"] is False
    await aged(live.redis, timedelta(hours=1))

    fresh = await live.pool.replace(live.pool.workers[-1])
    again = await live.run()
    second: Any = again.result["output"]
    assert second["cached"] is True
    assert picture(again) == picture(made)
    assert second["images"][0]["url"] != first["images"][0]["url"]  # signed anew
    assert "libtorch" not in Path(f"/proc/{fresh.pid}/maps").read_text()
    assert fresh.resident_bytes() < 250e6

    other: Any = (await live.run(seed=8)).result["output"]
    assert other["cached"] is False
    assert "libtorch" in Path(f"/proc/{fresh.pid}/maps").read_text()  # the look above can fail
