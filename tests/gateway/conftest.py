"""One Redis server for all tests of the gateway that do not break it, each with keys of its own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flux_engine.cache.redis_link import RedisLink, RemoteServer
from tests.gateway.world import World, world
from tests.servers import RedisProcess


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("gateway-redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def link(shared_redis: RedisProcess) -> AsyncIterator[RedisLink]:
    made = RedisLink(RemoteServer(shared_redis.url), call_timeout_s=60)  # a busy machine is no server that is away
    yield made
    await made.close()


@pytest.fixture
def root() -> str:
    """What this test's keys in Redis begin with."""
    return f"flux:{uuid.uuid4().hex}"


@pytest.fixture
async def gw(shared_redis: RedisProcess, tmp_path: Path) -> AsyncIterator[World]:
    """A gateway with nothing behind it but a queue; the test's hand is its worker."""
    async with world(shared_redis.url, tmp_path) as made:
        yield made


@pytest.fixture
async def gw_with_hooks(shared_redis: RedisProcess, tmp_path: Path) -> AsyncIterator[World]:
    """A gateway whose webhooks may go to this machine."""
    async with world(shared_redis.url, tmp_path, WEBHOOK_PRIVATE_ADDRESSES="on") as made:
        yield made
