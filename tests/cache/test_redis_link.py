"""Calls to a server that answers some of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flux_engine.cache.redis_link import CacheAway, RedisLink, RemoteServer
from tests.servers import RedisProcess

UNHEARD = "return 'unheard'"


@asynccontextmanager
async def hard_of_hearing(redis: RedisProcess, heard: asyncio.Event) -> AsyncIterator[str]:
    """The URL of a server that never answers to UNHEARD; `heard` is set when it came."""
    passing: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if UNHEARD.encode() in data:
                    heard.set()
                else:
                    writer.write(data)
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", redis.port)
        for one, other in ((reader, to_server), (from_server, writer)):
            passing.add(asyncio.create_task(carry(one, other)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)


async def test_a_slow_call_does_not_lose_a_server_that_answered_since(redis: RedisProcess) -> None:
    heard = asyncio.Event()
    async with hard_of_hearing(redis, heard) as url:
        link = RedisLink(RemoteServer(url), call_timeout_s=1.0, retry_after_s=3600)
        slow = asyncio.create_task(link.eval(UNHEARD, [], []))
        await heard.wait()
        assert await link.eval("return 1", [], []) == 1
        with pytest.raises(CacheAway):
            await slow
        assert await link.eval("return 2", [], []) == 2
        with pytest.raises(CacheAway):
            await link.eval(UNHEARD, [], [])
        with pytest.raises(CacheAway):  # nothing was heard since
            await link.eval("return 3", [], [])
        await link.close()
