"""The Python client against the local platform, through the real SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from flux_client import (
    AsyncFluxClient,
    FluxClient,
    FluxClientError,
    JobCancelled,
    JobFailed,
    NotReached,
    Refused,
    Result,
    ResultLost,
)

from local_platform.job import Status
from local_platform.server import API_KEY, Platform
from tests.clients.endpoint import painting
from tests.runpod.handlers.painter import painted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Platform]:
    async with painting() as (platform, _):
        yield platform


pytestmark = pytest.mark.asyncio(loop_scope="module")


def client_of(platform: Platform, **options: Any) -> AsyncFluxClient:
    return AsyncFluxClient(platform.endpoint.id, **{"api_key": API_KEY, "base_url": platform.client_url, **options})


async def test_a_job_gives_its_pictures(platform: Platform, tmp_path: Path) -> None:
    async with client_of(platform) as client:
        result = await client.run({"prompt": "a red sun", "seed": 7})
        path = await client.save(result.images[0], tmp_path / "sun.png")
    assert path.read_bytes() == painted(7)
    assert (result.seed, result.images[0].seed, result.cached, result.warnings) == (7, 7, False, ())
    assert list(tmp_path.iterdir()) == [path]


async def test_the_blocking_client_does_the_same(platform: Platform, tmp_path: Path) -> None:
    def use() -> tuple[Result, bytes, list[str], dict[str, Any]]:
        with FluxClient(platform.endpoint.id, api_key=API_KEY, base_url=platform.client_url) as client:
            job = client.submit({"prompt": f"until {tmp_path / 'seen'}", "seed": 8})
            stages = []
            for update in job:
                stages.append(update.stage)
                if update.stage == "denoising":
                    (tmp_path / "seen").touch()
            result = job.result()
            saved = client.save(result.images[0], tmp_path / "sun.png")
            return result, saved.read_bytes(), stages, client.capabilities()

    result, data, stages, capabilities = await asyncio.to_thread(use)
    assert (result.seed, data) == (8, painted(8))
    assert "denoising" in stages
    assert capabilities == {"op": "capabilities", "given": {"op": "capabilities"}}


async def test_progress_is_an_iterator(platform: Platform, tmp_path: Path) -> None:
    updates = []
    async with client_of(platform) as client:
        job = await client.submit({"prompt": f"until {tmp_path / 'seen'}", "seed": 9})
        async for update in job:
            updates.append(update)
            if update.stage == "denoising":
                (tmp_path / "seen").touch()
        result = await job.result()
    seen = [update for update in updates if update.stage == "denoising"]
    assert [update.progress for update in updates] == sorted(update.progress for update in updates)
    assert seen[-1].total_steps == 2
    assert seen[-1].preview == b"preview"
    assert result.job_id == job.id


async def test_a_job_of_another_process_is_found_by_its_id(platform: Platform) -> None:
    async with client_of(platform) as client:
        submitted = await client.submit({"prompt": "a red sun", "seed": 10})
        assert (await client.job(submitted.id).result()).seed == 10


async def test_what_may_pass_is_tried_again_under_the_same_id(platform: Platform) -> None:
    async with client_of(platform) as client:
        job = await client.submit({"prompt": "fails once", "seed": 11})
        result = await job.result()
    assert result.job_id == job.id
    assert len(platform.endpoint.queue[job.id].events_of("taken")) == 2


@pytest.mark.parametrize(
    ("prompt", "error", "code"),
    [
        ("fails", JobFailed, "invalid_input"),
        ("fails always", JobFailed, "storage_failed"),
        ("no result", ResultLost, None),
        ("wrong hash", ResultLost, None),
    ],
)
async def test_a_failure_is_an_error_of_its_own(
    platform: Platform, prompt: str, error: type[FluxClientError], code: str | None
) -> None:
    async with client_of(platform, tries=2) as client:
        with pytest.raises(error) as failed:
            await client.read((await client.run({"prompt": prompt, "seed": 1})).images[0])
    assert getattr(failed.value, "code", None) == code
    if isinstance(failed.value, JobFailed):
        assert (failed.value.field, failed.value.message) == ("prompt", "as ordered")


async def test_a_cancelled_job_says_so(platform: Platform) -> None:
    async with client_of(platform) as client:
        job = await client.submit({"prompt": "slow", "seed": 1})
        await platform.endpoint.until(
            lambda: platform.endpoint.queue[job.id].status is Status.IN_PROGRESS, timeout_s=300
        )
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result()


async def test_a_job_that_is_cancelled_once_it_has_failed_runs_no_second_time() -> None:
    async with Platform() as platform, client_of(platform) as client:
        endpoint = platform.endpoint
        job = await client.submit({"prompt": "fails", "seed": 1})
        endpoint.queue.take("hand", now=endpoint.now())
        error = json.dumps({"code": "storage_failed", "message": "as ordered", "retryable": True, "job_id": job.id})
        endpoint.queue.finish(job.id, {"error": error}, worker="hand", n_bytes=1, now=endpoint.now())
        await job.cancel()
        ending = asyncio.create_task(job.result())
        await endpoint.until(lambda: endpoint.queue[job.id].status is Status.CANCELLED)
        with pytest.raises(JobCancelled):
            await ending


async def test_a_wrong_address_key_or_job_is_said(platform: Platform) -> None:
    async with client_of(platform, base_url="http://127.0.0.1:9/v2", tries=2) as client:
        with pytest.raises(NotReached):
            await client.run({"prompt": "x"})
    async with AsyncFluxClient("no-such", api_key=API_KEY, base_url=platform.client_url) as client:
        with pytest.raises(Refused) as refused:
            await client.run({"prompt": "x"})
    assert refused.value.status == 404
    async with client_of(platform) as client:
        with pytest.raises(ResultLost):
            await client.job("no-such-job").result()


async def test_jobs_survive_resets_and_a_killed_worker() -> None:
    async with painting(workers=2, resets=0.15) as (platform, pool), client_of(platform) as client:
        jobs = [await client.submit({"prompt": "in silence", "seed": seed}) for seed in range(12)]
        waiting = asyncio.gather(*(job.result() for job in jobs))
        await platform.endpoint.until(lambda: platform.endpoint.queue.counts()["completed"] >= 3, timeout_s=300)
        await pool.replace(pool.workers[0])
        results = await waiting
        data = [await client.read(result.images[0]) for result in results]
    assert data == [painted(seed) for seed in range(12)]
    assert sum(platform.faults.counts.values()) > 0
