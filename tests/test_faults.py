"""A job through the whole worker while its servers are killed and started again: Redis and S3, at each stage."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flux_engine.build import build_questions
from flux_engine.cache.flight import AWAY
from flux_engine.cache.lua import Terms
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import RemoteServer
from flux_engine.generate.generator import Generator
from flux_engine.generate.gpu import GpuThread
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_store import LoraStore
from flux_engine.inputs.pictures import PictureSource
from flux_engine.models.beside.controlnets import ControlNets
from flux_engine.models.beside.depth import DepthModels
from flux_engine.models.manager import FluxModelManager
from flux_engine.net.fetch import Fetcher
from flux_engine.progress import Update
from flux_engine.results.pending import PendingResults
from flux_engine.settings import Settings
from flux_engine.worker.worker import NOT_STORED, Worker
from tests.servers import RedisProcess, S3Process, ServerProcess, fetched

QUICK = {"prompt": "a red sun", "num_inference_steps": 2, "size": "128x128", "seed": 7}
STAGES = ("queued", "denoising", "encoding", "uploading")
RECONNECT_S = 0.2


@dataclass
class Site:
    """A worker with its two servers, and one job that it is given again and again."""

    worker: Worker
    redis: RedisProcess
    s3: S3Process

    def server(self, name: str) -> ServerProcess:
        return self.redis if name == "redis" else self.s3

    async def run(self, *, when: Callable[[Update], None] = lambda update: None, **fields: Any) -> dict[str, Any]:
        """The job's result; `when` sees each update of its progress before the job goes on."""

        async def seen(update: Update) -> None:
            when(update)

        return await self.worker.run({"id": "job", "input": {**QUICK, **fields}}, seen, min_interval_s=0.0)


@pytest.fixture(name="s3")
def _s3(tmp_path: Path) -> Iterator[S3Process]:
    (tmp_path / "s3").mkdir()
    server = S3Process(tmp_path / "s3")
    server.start()
    yield server
    server.kill()


@pytest.fixture(name="redis")
def _redis(tmp_path: Path) -> Iterator[RedisProcess]:
    (tmp_path / "redis").mkdir()
    server = RedisProcess(tmp_path / "redis")
    server.start()
    yield server
    server.kill()


@pytest.fixture(name="site")
async def _site(
    warm: tuple[FluxModelManager, GpuThread], s3: S3Process, redis: RedisProcess, tmp_path: Path
) -> AsyncIterator[Site]:
    models, gpu = warm
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path / "volume")})
    cache = CacheManager(
        RemoteServer(redis.url),
        namespace="faults",
        terms=Terms(lease_s=2, entry_s=60, wait_limit_s=10),
        call_timeout_s=0.5,
        retry_after_s=RECONNECT_S,
    )
    inputs = InputFetcher(LoraStore.from_settings(settings), PictureSource(Fetcher()))
    worker = Worker(
        Generator(
            models,
            gpu,
            controlnets=ControlNets(tmp_path / "controlnets"),
            depths=DepthModels(tmp_path / "preprocessors"),
        ),
        served=models.served,
        cache=cache,
        store=s3.store(),
        pending=PendingResults(tmp_path / "pending"),
        inputs=inputs,
        questions=build_questions(settings, models=models, inputs=inputs, cache=cache),
        url_expiry_s=3600,
    )
    yield Site(worker, redis, s3)
    await worker.close()


def check(result: dict[str, Any], *, cached: bool) -> str:
    """The picture of `result`, fetched as its client would; its hash."""
    assert "error" not in result, result
    assert result["cached"] is cached
    (image,) = result["images"]
    status, data, _ = fetched(image["url"])
    digest = hashlib.sha256(data).hexdigest()
    assert (status, digest) == (200, image["sha256"])
    return digest


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(result["error"])
    return error


async def test_cold_then_warm(site: Site) -> None:
    cold = check(await site.run(), cached=False)
    assert check(await site.run(), cached=True) == cold


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("is_back_at_once", [True, False])
async def test_redis_is_killed_at_any_stage(site: Site, stage: str, is_back_at_once: bool) -> None:
    def kill(update: Update) -> None:
        if update["stage"] == stage:
            site.redis.kill()
            if is_back_at_once:
                site.redis.start()

    first = await site.run(when=kill)
    digest = check(first, cached=False)
    if not is_back_at_once:
        assert first["warnings"] == [AWAY]
        again = await site.run()
        assert check(again, cached=False) == digest
        assert (again["timings"]["denoise_ms"], again["usage"]["gpu_seconds"]) == (0, 0)  # noted on the volume
        site.redis.start()
    await asyncio.sleep(RECONNECT_S)
    again = await site.run()  # a hit where the server was back before the result was remembered
    assert check(again, cached=again["cached"]) == digest
    assert again["timings"]["denoise_ms"] == 0
    assert again["cached"] or not is_back_at_once or first["warnings"] == [AWAY]
    assert check(await site.run(), cached=True) == digest


async def test_a_note_of_an_object_that_is_gone_is_none(site: Site) -> None:
    site.redis.kill()
    digest = check(await site.run(), cached=False)
    site.s3.kill()
    site.s3.start()  # and remembers nothing
    again = await site.run()
    assert check(again, cached=False) == digest
    assert again["timings"]["denoise_ms"] > 0


@pytest.mark.parametrize("stage", STAGES)
async def test_s3_is_killed_at_any_stage_and_the_retry_uploads_what_was_made(site: Site, stage: str) -> None:
    def kill(update: Update) -> None:
        if update["stage"] == stage:
            site.s3.kill()
        elif (update["stage"], stage) == ("encoding", "uploading"):
            site.s3.freeze()  # else all may be stored before it is killed

    error = error_of(await site.run(when=kill))
    assert (error["code"], error["retryable"]) == ("storage_failed", True)
    site.s3.start()
    retried = await site.run()
    digest = check(retried, cached=False)
    assert retried["timings"]["denoise_ms"] == 0
    assert check(await site.run(), cached=True) == digest


async def test_s3_is_restarted_during_a_job(site: Site) -> None:
    def restart(update: Update) -> None:
        if update["stage"] == "encoding":
            site.s3.kill()
            site.s3.start()

    digest = check(await site.run(when=restart), cached=False)
    assert check(await site.run(), cached=True) == digest


async def test_an_object_that_is_gone_is_made_again(site: Site) -> None:
    digest = check(await site.run(), cached=False)
    site.s3.kill()
    site.s3.start()  # and remembers nothing
    assert check(await site.run(), cached=False) == digest
    assert check(await site.run(), cached=True) == digest


async def test_a_hit_waits_for_its_store(site: Site) -> None:
    check(await site.run(), cached=False)
    site.s3.kill()
    error = error_of(await site.run())
    assert (error["code"], error["retryable"]) == ("storage_failed", True)


async def test_what_comes_inline_needs_no_store(site: Site) -> None:
    inline: dict[str, Any] = {"response_format": "b64_json"}
    first = await site.run(**inline)
    site.s3.kill()
    for _ in range(2):
        without = await site.run(**inline)
        assert without["images"] == first["images"]
        assert without["warnings"] == [NOT_STORED]


async def test_both_are_away(site: Site) -> None:
    site.redis.kill()
    site.s3.kill()
    assert error_of(await site.run())["code"] == "storage_failed"
    inline = await site.run(response_format="b64_json")
    assert set(inline["warnings"]) <= {AWAY, NOT_STORED}
    assert len(inline["images"]) == 1
    site.redis.start()
    site.s3.start()
    await asyncio.sleep(RECONNECT_S)
    digest = check(await site.run(), cached=False)
    assert check(await site.run(), cached=True) == digest
