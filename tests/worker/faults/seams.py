"""What stands between the worker and its servers, store and volume: each hands calls on, and fails as planned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from aiohttp import web

from flux_engine.errors import StorageFailed
from flux_engine.results.entry import CacheEntry
from flux_engine.results.files import ResultFiles
from flux_engine.results.pending import PendingResults
from flux_engine.results.store import Link, ResultStore
from tests.worker.faults.plan import Calls, Seam, Way

T = TypeVar("T")
COUNTED: Final = (b"EVAL", b"GET", b"SUBSCRIBE")
HELD_S: Final = 0.2  # for another command to pass; where none does, the job waits for this one


class FaultyStore:
    """A ResultStore before another one."""

    def __init__(self, store: ResultStore, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    @property
    def prefix(self) -> str:
        return self._store.prefix

    @property
    def has_urls(self) -> bool:
        return self._store.has_urls

    async def identity(self) -> str:
        return await self._handed_on(self._store.identity)

    async def warm(self) -> None:
        await self._handed_on(self._store.warm)

    async def probe(self) -> None:
        await self._store.probe()

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        await self._handed_on(lambda: self._store.put(data, key=key, content_type=content_type))

    async def url(self, key: str) -> Link:
        return await self._handed_on(lambda: self._store.url(key))

    async def exists(self, key: str, *, size: int) -> bool | None:
        return await self._handed_on(lambda: self._store.exists(key, size=size))

    async def get(self, key: str, *, size: int, sha256: str) -> bytes:
        return await self._handed_on(lambda: self._store.get(key, size=size, sha256=sha256))

    async def delete(self, key: str) -> None:
        await self._handed_on(lambda: self._store.delete(key))

    def close(self) -> None:
        self._store.close()

    async def _handed_on(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await handed_on(self._calls, "store", call)
        except ConnectionError:
            raise StorageFailed("the store did not answer; send the job again") from None


class FaultyPending(PendingResults):
    """A volume that does not take or show what is kept, once."""

    calls: Calls

    async def keep(self, files: ResultFiles, *, job_id: str) -> bool:
        return bool(await self._handed_on(lambda: super(FaultyPending, self).keep(files, job_id=job_id)))

    async def note(self, entry: CacheEntry, *, job_id: str) -> bool:
        return bool(await self._handed_on(lambda: super(FaultyPending, self).note(entry, job_id=job_id)))

    async def find(self, fingerprint: str, *, prefix: str, job_id: str | None = None) -> ResultFiles | None:
        return await self._handed_on(lambda: super(FaultyPending, self).find(fingerprint, prefix=prefix, job_id=job_id))

    async def drop(self, fingerprint: str) -> None:
        await self._handed_on(lambda: super(FaultyPending, self).drop(fingerprint))

    async def _handed_on(self, call: Callable[[], Awaitable[T]]) -> T | None:
        with suppress(ConnectionError):
            return await handed_on(self.calls, "volume", call)
        return None


async def handed_on(calls: Calls, seam: Seam, call: Callable[[], Awaitable[T]]) -> T:
    """`call`, or ConnectionError where it or its answer does not arrive."""
    way = calls.next(seam)
    if way == "refused":
        raise ConnectionError
    if way == "cancelled":
        calls.cancel()
    answer = await call()
    if way == "cancelled late":
        calls.cancel()
    if way == "lost":
        raise ConnectionError
    return answer


class RedisProxy:
    """A Redis server's address that counts commands on their way and breaks connections as planned.

    A call that fails does so at its second try too, which redis-py makes by itself.
    """

    def __init__(self, port: int, calls: Calls) -> None:
        self.subscribed = asyncio.Event()
        self._passed = asyncio.Event()
        self._port = port
        self._calls = calls
        self._failed: tuple[bytes, Way] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL."""
        listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
        finally:
            listening.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._pass(reader, writer)
        finally:
            writer.close()
            self._connections.discard(connection)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        ways: list[Way | None] = []
        is_counted = False

        async def answers() -> None:
            while data := await from_server.read(65_536):
                way = ways[-1] if ways else None
                if way in ("lost", "repeated"):
                    break
                if way == "cancelled late":
                    self._calls.cancel()
                    ways.append(None)
                writer.write(data)
                if is_counted:
                    self._passed.set()
            writer.close()

        answering = asyncio.create_task(answers())
        try:
            while command := await _command(reader):
                is_counted, way = _name(command) in COUNTED, self._way_of(command)
                if way == "refused":
                    return
                if way is not None and way.startswith("cancelled") and way != "cancelled late":
                    self._calls.cancel()
                if way == "cancelled, read late":
                    self._passed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(HELD_S):
                            await self._passed.wait()
                ways.append(way)
                to_server.write(command)
        finally:
            to_server.close()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    def _way_of(self, command: bytes) -> Way | None:
        name = _name(command)
        if name not in COUNTED:
            return None
        if name == b"SUBSCRIBE":
            self.subscribed.set()
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] == command:
            return failed[1]
        way = self._calls.next("redis")
        if way in ("refused", "lost"):
            self._failed = command, way
        return way


def _name(command: bytes) -> bytes:
    return command.split(b"\r\n")[2].upper()


async def _command(reader: asyncio.StreamReader) -> bytes:
    """One command as it was sent; empty at the end."""
    head = await reader.readline()
    parts = [head]
    for _ in range(int(head[1:] or b"0")):
        length = await reader.readline()
        parts += [length, await reader.readexactly(int(length[1:]) + 2)]
    return b"".join(parts)


def faulty_site(files: dict[str, bytes], calls: Calls) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What answers requests for `files` by their paths."""

    async def answer(request: web.Request) -> web.StreamResponse:
        way, data = calls.next("web"), files[request.path]
        if way == "refused":
            return web.Response(status=503)
        if way == "cancelled":
            calls.cancel()
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if way == "lost" and request.transport is not None:
            request.transport.close()
            return response
        if way == "cancelled late":
            calls.cancel()
        with suppress(ConnectionError):
            await response.write(data[len(data) // 2 :])
        return response

    return answer
