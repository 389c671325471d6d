"""What stands behind the gateway of `make serve`: a stand-in for RunPod or Celery, with the same workers.

async with behind("celery", environment, folder=folder) as system:
    await system.pool.start(1)
    settings = GatewaySettings.from_environment(environment | system.variables)
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flux_engine.queues.celery_settings import CelerySettings
from local_platform.celery_workers import CeleryPool
from local_platform.processes import OnLine, Pool
from local_platform.server import API_KEY, Platform
from local_platform.workers import WorkerPool

QueueName = Literal["runpod", "celery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """The workers, none of them started, and what the gateway has to be told to reach them."""

    pool: Pool
    variables: Mapping[str, str]


@asynccontextmanager
async def behind(
    queue: QueueName, environment: Mapping[str, str], *, folder: Path, on_line: OnLine | None = None
) -> AsyncIterator[Behind]:
    """`environment` is the workers' own and names the Redis; `folder` holds what outlives them."""
    if queue == "celery":
        held = {name: os.environ[name] for name in CelerySettings.variables() if os.environ.get(name)}
        shared = {"CELERY_FOLDER": str(folder / "parcels")} | held
        async with CeleryPool(environment={**environment, **shared}, on_line=on_line) as workers:
            yield Behind(pool=workers, variables={**shared, "QUEUE": "celery"})
        return
    async with Platform() as platform:
        async with WorkerPool(platform, environment=environment, on_line=on_line) as pool:
            reached = {
                "QUEUE": "runpod",
                "RUNPOD_ENDPOINT_ID": platform.endpoint.id,
                "RUNPOD_API_KEY": API_KEY,
                "RUNPOD_ENDPOINT_BASE_URL": platform.client_url,
            }
            yield Behind(pool=pool, variables=reached)
