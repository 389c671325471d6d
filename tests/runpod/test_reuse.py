"""A job that was made an hour ago, sent again to a worker that has just started: the real handler with S3 and Redis."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from benchmarks.cache_hit import requests_of, scripts_run
from local_platform.job import Job, Status
from local_platform.server import Platform
from tests.runpod.pool import LoggedPool
from tests.servers import ACCESS_KEY, SECRET_KEY, RedisProcess, S3Process, fetched
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUN = {"prompt": "a red sun on the left over purple mountains", "seed": 7, "num_inference_steps": 4}


@dataclass(frozen=True, slots=True)
class Endpoint:
    platform: Platform
    pool: LoggedPool
    redis: RedisProcess
    s3: S3Process

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
            yield Endpoint(platform, pool, redis, s3)
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


def signed_at(url: str) -> str:
    (moment,) = parse_qs(urlsplit(url).query)["X-Amz-Date"]
    return moment


def second_of_clock() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


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
    await until(lambda: second_of_clock() > signed_at(first["images"][0]["url"]))  # signatures know no shorter time

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


HITS = 10
MOST_BYTES = 3_000  # of a hit's result, its signed URL included
MOST_SYSTEM_CALLS = 400  # of a hit, by all threads of its worker


async def test_what_a_hit_asks_and_serialises(live: Endpoint) -> None:
    """Counts, which do not depend on the machine: one look at Redis, one at the bucket, a small result."""
    for _ in range(2):  # made, then found by a worker that has told what it serves
        await live.run(seed=9)
    requests_of(live.s3, "start")
    asked = await scripts_run(live.redis)
    hits = [await live.run(seed=9) for _ in range(HITS)]
    assert all(picture(hit) for hit in hits)
    assert await scripts_run(live.redis) - asked <= HITS + 2  # once a minute a worker tells what it serves
    assert requests_of(live.s3, "stop") == 2 * HITS  # this test's own downloads are the other half
    assert all(len(json.dumps(hit.result)) <= MOST_BYTES for hit in hits)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_how_many_system_calls_a_hit_takes(live: Endpoint, tmp_path: Path) -> None:
    for _ in range(2):
        await live.run(seed=9)
    counts = tmp_path / "counts"
    watching = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-c", "-o", str(counts), "-p", str(live.pool.workers[-1].pid)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert watching.stderr is not None
    said = (await watching.stderr.readline()).decode()
    if "attached" not in said:
        pytest.skip(f"strace may not attach here: {said.strip()}")
    for _ in range(HITS):
        await live.run(seed=9)
    watching.send_signal(signal.SIGINT)
    await watching.wait()
    total = next(line for line in counts.read_text().splitlines() if line.endswith("total"))
    assert int(total.split()[3]) <= MOST_SYSTEM_CALLS * HITS, counts.read_text()
