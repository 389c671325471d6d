"""The whole system for a benchmark: Redis, workers behind either queue, and a gateway over HTTP in this process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from flux_engine.cache.embedded import EmbeddedServer
from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.assembly import open_gateway
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.logs import set_up_logs
from local_platform.behind import Behind, QueueName, behind
from tests.gateway.world import served

NAMESPACE: Final = "benchmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    gateway: Gateway
    behind: Behind
    http: httpx2.AsyncClient  # of one user with a key
    environment: Mapping[str, str]  # what gateway and workers share

    async def create(self, **fields: Any) -> str:
        """A new task's id."""
        answer = await self.http.post("generate-image", json=fields)
        answer.raise_for_status()
        return str(answer.json()["task_id"])

    async def status(self, task_id: str) -> dict[str, Any]:
        said: dict[str, Any] = (await self.http.get(f"task/{task_id}/status")).json()
        return said

    async def until(self, task_id: str, *statuses: str) -> dict[str, Any]:
        while (said := await self.status(task_id))["status"] not in statuses:
            await asyncio.sleep(0.02)
        return said


@asynccontextmanager
async def system(queue: QueueName, *, workers: int, **variables: str) -> AsyncIterator[System]:
    """`workers` warm workers with the bundled model. `variables` are the gateway's and the workers'."""
    set_up_logs("WARNING", as_json=False)
    with tempfile.TemporaryDirectory(prefix="system-") as name:
        folder = Path(name)
        redis = EmbeddedServer(folder / "redis")
        try:
            shared = {
                "REDIS_URL": await redis.url(),
                "CACHE_NAMESPACE": NAMESPACE,
                "FLUX_MODEL": "flux-tiny",
                "MODEL_VOLUME": str(folder / "volume"),
                "WARMUP": "eager",
                "OMP_NUM_THREADS": "1",
                **variables,
            }
            async with behind(queue, shared, folder=folder) as standing:
                environment = {
                    **shared,
                    **standing.variables,
                    "GATEWAY_DATA": str(folder),
                    "HOST": "127.0.0.1",
                    "PORT": "0",
                }
                settings = GatewaySettings.from_environment(environment)
                headers = {"Authorization": f"Bearer {await _key(settings, shared['REDIS_URL'])}"}
                async with (
                    open_gateway(settings) as gateway,
                    served(gateway) as url,
                    httpx2.AsyncClient(base_url=url, headers=headers, timeout=90, trust_env=False) as http,
                ):
                    await standing.pool.start(workers)
                    while not await gateway.offers.is_known():
                        await asyncio.sleep(0.1)
                    yield System(gateway=gateway, behind=standing, http=http, environment=environment)
        finally:
            redis.close()


async def _key(settings: GatewaySettings, redis_url: str) -> str:
    link = RedisLink(RemoteServer(redis_url))
    try:
        key, record = mint("benchmark", frozenset(("generate", "read")), expires_at=None)
        await KeyStore(link, root=settings.redis_root).add(record)
    finally:
        await link.close()
    return key.get_secret_value()
