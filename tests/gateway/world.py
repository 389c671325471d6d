"""A gateway over HTTP with the local platform behind it, and a hand that plays the workers' part where none is needed.

async with world(redis.url) as gw:
    made = await gw.post("/generate-image", json=SUN)
    job = await gw.hand.take()
    gw.hand.finish(job)
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import math
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from PIL import Image

from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.cli.gateway import GatewayServer, config_of
from flux_engine.gateway.app import create_app
from flux_engine.gateway.assembly import open_gateway
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.seams import Scope
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import key_id_of, mint
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.pace import Pace
from local_platform.job import Job
from local_platform.server import API_KEY, Platform
from tests.waiting import until

SUN: Final = {"prompt": "a red sun on the left over purple mountains", "width": 128, "height": 128, "steps": 2}
BOTH: Final[frozenset[Scope]] = frozenset(("generate", "read"))
WITHIN_S: Final = 300.0  # a stall is no failure
QUICK: Final = Pace(
    tick=0.02,
    least=0.05,
    most=0.05,
    ending=0.05,
    in_line=0.05,
    after_error=0.1,
    unknown_again=0.1,
    told=0.3,
)


@dataclass(slots=True)
class Hand:
    """Takes jobs from the platform and finishes them, as a worker does."""

    platform: Platform
    worker: str = "hand"
    pictures: int = 0
    taken: list[Job] = field(default_factory=list)

    async def take(self, *, within_s: float = WITHIN_S) -> Job:
        """The next job, once there is one."""
        endpoint = self.platform.endpoint
        endpoint.saw(self.worker, has_asked=True)

        def attempt() -> Job | None:
            jobs = endpoint.queue.take(self.worker, now=endpoint.now())
            return jobs[0] if jobs else None

        job = await endpoint.wait_for(attempt, timeout_s=within_s)
        assert job is not None, "no job came"
        self.taken.append(job)
        endpoint.changed()
        return job

    def progress(self, job: Job, progress: float, *, seq: int, stage: str = "denoising", **more: Any) -> None:
        endpoint = self.platform.endpoint
        update = {"stage": stage, "progress": progress, "seq": seq, **more}
        endpoint.queue.progress(job.id, update, worker=self.worker, now=endpoint.now())
        endpoint.changed()

    def finish(self, job: Job, output: Mapping[str, Any] | None = None, *, error: str | None = None) -> None:
        """With `output`, or with a picture of its own."""
        body = {"error": error} if error is not None else {"output": output or result_of(job)}
        endpoint = self.platform.endpoint
        endpoint.queue.finish(job.id, body, worker=self.worker, n_bytes=100, now=endpoint.now())
        endpoint.changed()

    async def work(self, *, count: int | None = None) -> None:
        """Finish jobs as they come, for ever or `count` of them."""
        while count is None or count > 0:
            self.finish(await self.take(within_s=math.inf))
            count = None if count is None else count - 1


def result_of(job: Job, **more: Any) -> dict[str, Any]:
    """A worker's result for `job`: a picture whose colour is the seed's."""
    asked = _input(job)
    data = picture(int(asked["seed"]), width=asked.get("width", 64), height=asked.get("height", 64))
    facts = {"content_type": "image/png", "width": asked.get("width", 64), "height": asked.get("height", 64)}
    image = facts | {"seed": asked["seed"], "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return {
        "images": [image | {"b64_json": base64.b64encode(data).decode()}],
        "seed": asked["seed"],
        "model": {"id": "flux-tiny", "revision": "r", "precision": "float32"},
        "parameters": {"prompt": asked["prompt"]},
        "cached": False,
        "timings": {"total_ms": 1.0},
        "warnings": [],
        "usage": {"work": 0.03125, "gpu_seconds": 0.1},
        **more,
    }


def picture(seed: int, *, width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (seed % 256, seed // 256 % 256, 77)).save(buffer, "PNG")
    return buffer.getvalue()


def failure(code: str, message: str = "it broke", **more: Any) -> str:
    """A worker's error."""
    return json.dumps({"code": code, "message": message, "retryable": False, "job_id": "j", **more})


def _input(job: Job) -> dict[str, Any]:
    held = job.payload["input"]
    assert isinstance(held, dict)
    return held


class World:
    """The gateway as a client sees it; every call is made by the user `ada`."""

    def __init__(self, gateway: Gateway, platform: Platform, url: str, key: str) -> None:
        self.gateway = gateway
        self.platform = platform
        self.url = url
        self.hand = Hand(platform)
        self.headers = {"Authorization": f"Bearer {key}"}
        self.client = httpx2.AsyncClient(  # over plain HTTP: reading the authorities' certificates takes 50 ms
            base_url=url, headers=self.headers, timeout=WITHIN_S, trust_env=False, verify=False
        )

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self.client.get(path, **more)

    async def post(self, path: str, **more: Any) -> httpx2.Response:
        return await self.client.post(path, **more)

    async def delete(self, path: str, **more: Any) -> httpx2.Response:
        return await self.client.delete(path, **more)

    async def create(self, **fields: Any) -> dict[str, Any]:
        """A new task of its own, as it was answered."""
        answer = await self.post("/generate-image", json=SUN | fields)
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def status(self, task_id: str) -> dict[str, Any]:
        body: dict[str, Any] = (await self.get(f"/task/{task_id}/status")).json()
        return body

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """The task's status once it is one of `statuses`."""
        async with asyncio.timeout(WITHIN_S):
            while (said := await self.status(task_id))["status"] not in statuses:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return said

    async def until_submitted(self, task_id: str) -> Task:
        """The task once its queue's ticket is noted, which a worker may come before."""
        async with asyncio.timeout(WITHIN_S):
            while (task := await self.gateway.ledger.get(task_id)) is None or task.ticket is None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return task

    async def until_settled(self, task_id: str) -> None:
        """A task's end is seen a moment before its charge is settled and its place in the line is free."""
        async with asyncio.timeout(WITHIN_S):
            while (task := await self.gateway.ledger.get(task_id)) is None or not task.is_settled:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def revoke(self, headers: Mapping[str, str]) -> None:
        """End the key in `headers`."""
        key_id = key_id_of(headers["Authorization"].removeprefix("Bearer "))
        assert key_id is not None
        async with _key_store(self.gateway.settings) as keys:
            assert await keys.revoke(key_id)

    async def key_of(self, user: str, scopes: frozenset[Scope] = BOTH) -> dict[str, str]:
        """Headers of another user."""
        key = await _minted(self.gateway.settings, user, scopes)
        return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def world(
    redis_url: str, folder: Path, *, platform: Platform | None = None, pace: Pace = QUICK, **variables: str
) -> AsyncIterator[World]:
    """A gateway with keys of its own in the Redis at `redis_url`, and its files in `folder`."""
    async with nullcontext(platform) if platform is not None else Platform() as behind:
        settings = settings_of(redis_url, behind, folder, **variables)
        key = await _minted(settings, "ada", BOTH)
        async with open_gateway(settings, pace=pace) as gateway, served(gateway) as url:
            made = World(gateway, behind, url, key)
            await _hears_workers(gateway)
            async with made.client:
                yield made


async def _hears_workers(gateway: Gateway) -> None:
    """A worker's word is passed on to those who listen, and not kept."""

    async def listens() -> bool:
        ((_, count),) = await gateway.redis.pubsub_numsub(gateway.offers.notices.channel)
        return bool(count)

    await until(listens)


def settings_of(redis_url: str, platform: Platform, folder: Path, **variables: str) -> GatewaySettings:
    return GatewaySettings.from_environment(environment_of(redis_url, platform, folder) | variables)


def environment_of(redis_url: str, platform: Platform, folder: Path) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "CACHE_NAMESPACE": uuid.uuid4().hex,
        "FLUX_MODEL": "flux-tiny",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "GATEWAY_DATA": str(folder),
        "GATEWAY_SECRET": "s" * 32,
        "RUNPOD_ENDPOINT_ID": platform.endpoint.id,
        "RUNPOD_API_KEY": API_KEY,
        "RUNPOD_ENDPOINT_BASE_URL": platform.client_url,
    }


class _Server(GatewayServer):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


@asynccontextmanager
async def served(gateway: Gateway) -> AsyncIterator[str]:
    """The gateway on a port of its own; gives its URL."""
    server = _Server(config_of(gateway.settings, create_app(gateway)), gateway)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        gateway.hub.close()
        server.should_exit = True
        await serving


async def _minted(settings: GatewaySettings, user: str, scopes: frozenset[Scope]) -> str:
    key, record = mint(user, scopes, expires_at=None)
    async with _key_store(settings) as keys:
        await keys.add(record)
    return key.get_secret_value()


@asynccontextmanager
async def _key_store(settings: GatewaySettings) -> AsyncIterator[KeyStore]:
    url = settings.shared.redis_url
    assert url is not None
    link = RedisLink(RemoteServer(url.get_secret_value()))
    try:
        yield KeyStore(link, root=settings.redis_root)
    finally:
        await link.close()
