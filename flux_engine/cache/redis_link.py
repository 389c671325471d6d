"""Calls to one Redis server, each bounded in time.

A call is repeated at most once, on a fresh connection, which mends the sockets of a worker that was frozen and woken. A
call that fails because of the server raises CacheAway, the log says so once, and no further call is tried for
`retry_after_s`: a server that is down costs a job milliseconds, not time-outs. One that refuses connections costs
milliseconds anyway and is tried again sooner, so that little is made without it once it is back. The first call that
succeeds again is logged too. A server that answers with an error, for instance because it is full, is not down: the
next call is tried at once, since the server may accept it. What is stored is unknown here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 2.0
MAX_CONNECTIONS: Final = 64
RETRY_AFTER_S: Final = 5.0
RETRY_REFUSED_S: Final = 0.5
REFUSALS_EVERY_S: Final = 60.0  # between two log lines of one kind
KNOWN_REFUSALS: Final = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", "CROSSSLOT", "MOVED", "CLUSTERDOWN")


class CacheAway(Exception):
    """The server cannot be used now; the caller goes on without it."""


class RedisServer(Protocol):
    """Where the server is. Two kinds: one that the operator runs, and the embedded one (embedded.py)."""

    async def url(self) -> str:
        """A URL to connect to; an embedded server is started first. Raises CacheAway."""
        ...

    def close(self) -> None:
        """This process uses the server no more."""
        ...


class RemoteServer:
    """The operator's server, REDIS_URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def url(self) -> str:
        return self._url

    def close(self) -> None:
        """Nothing is held."""


class RedisLink:
    """Calls to one server, for one event loop."""

    def __init__(
        self, server: RedisServer, *, call_timeout_s: float = CALL_TIMEOUT_S, retry_after_s: float = RETRY_AFTER_S
    ) -> None:
        self.call_timeout_s: Final = call_timeout_s
        self._server = server
        self._retry_after_s = retry_after_s
        self._client: Redis | None = None
        self._connecting = asyncio.Lock()
        self._away_since: float | None = None
        self._answered_at = 0.0
        self._next_try = 0.0
        self._next_refusal = 0.0

    async def eval(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Any:
        """What a Lua script returns: one round trip. Raises CacheAway."""
        client, began = await self._connected(), time.monotonic()
        try:
            async with _within(2 * self.call_timeout_s):
                reply = await client.eval(script, len(keys), *keys, *arguments)
        except ResponseError as error:
            self._found()
            raise self._refused(error) from error
        except (RedisError, OSError) as error:
            raise self.lost(error, began=began) from error
        self._found()
        return reply

    async def get(self, key: str) -> bytes | None:
        """The value of `key`. Raises CacheAway."""
        client, began = await self._connected(), time.monotonic()
        try:
            async with _within(2 * self.call_timeout_s):
                value = await client.get(key)
        except (RedisError, OSError) as error:
            raise self.lost(error, began=began) from error
        self._found()
        return value.encode() if isinstance(value, str) else value

    async def client(self) -> Redis:
        """The client, for a library with commands of its own; what it raises goes to `lost`. Raises CacheAway."""
        return await self._connected()

    @asynccontextmanager
    async def subscription(self, channel: str) -> AsyncIterator[Subscription]:
        """Messages of `channel` from the moment that the body begins. Raises CacheAway."""
        client, began = await self._connected(), time.monotonic()
        messages = client.pubsub()
        try:
            try:
                async with _within(2 * self.call_timeout_s):
                    await messages.subscribe(channel)
                    while (reply := await messages.get_message(timeout=self.call_timeout_s)) is not None:
                        if reply["type"] == "subscribe":
                            break
            except (RedisError, OSError) as error:
                raise self.lost(error, began=began) from error
            yield Subscription(messages, self)
        finally:
            await messages.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None
        self._server.close()

    async def _connected(self) -> Redis:
        if self._away_since is not None and time.monotonic() < self._next_try:
            raise CacheAway("result cache unreachable")
        async with self._connecting:
            if self._client is None or self._away_since is not None:
                try:
                    url = await self._server.url()  # an embedded server that died is started again here
                    self._client = self._client or self._new_client(url)
                except (CacheAway, RedisError, OSError, ValueError) as error:
                    raise self.lost(error) from error
            return self._client

    def _new_client(self, url: str) -> Redis:
        pool = BlockingConnectionPool.from_url(  # the default pool raises at its bound; this one lets calls wait
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=self.call_timeout_s,
            socket_timeout=self.call_timeout_s,
            socket_connect_timeout=self.call_timeout_s,
            retry=Retry(ConstantBackoff(0.05), 1),
        )
        return Redis.from_pool(pool)

    def lost(self, error: Exception, *, began: float | None = None) -> CacheAway:
        """Record that `error` made the server unreachable; returns what to raise.

        A call that waited in vain since `began` says nothing of a server that answered another one meanwhile.
        """
        if began is not None and began < self._answered_at and _has_waited(error):
            return CacheAway("result cache did not answer a call")
        if self._away_since is None:
            self._away_since = time.monotonic()
            # Log the kind of the error only: its text may hold an address with a password.
            reason = str(error) if isinstance(error, CacheAway) else type(error).__name__
            log.warning("result cache unreachable, jobs go on without it", extra={"detail": reason})
        pause_s = self._retry_after_s if _has_waited(error) else min(self._retry_after_s, RETRY_REFUSED_S)
        self._next_try = time.monotonic() + pause_s
        return CacheAway("result cache unreachable")

    def _refused(self, error: ResponseError) -> CacheAway:
        """Log, at most once a minute, that the server refused a call; returns what to raise."""
        if time.monotonic() >= self._next_refusal:
            self._next_refusal = time.monotonic() + REFUSALS_EVERY_S
            log.warning("result cache refused a call, jobs go on without it", extra={"detail": _kind_of(error)})
        return CacheAway("result cache refused a call")

    def _found(self) -> None:
        self._answered_at = time.monotonic()
        if self._away_since is not None:
            log.info("result cache reachable again", extra={"ms": round((time.monotonic() - self._away_since) * 1000)})
            self._away_since = None


class Subscription:
    """The messages of one channel."""

    def __init__(self, messages: PubSub, link: RedisLink) -> None:
        self._messages = messages
        self._link = link

    async def next(self, timeout_s: float) -> bytes | None:
        """The next message, or None after `timeout_s`, or once the connection was made anew: what was sent meanwhile
        is lost. Raises CacheAway."""
        began = time.monotonic()
        deadline = began + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with _within(left + self._link.call_timeout_s):
                    message = await self._messages.get_message(timeout=left)
            except (RedisError, OSError) as error:
                raise self._link.lost(error, began=began) from error
            if message is not None and message["type"] == "message":
                data: bytes = message["data"]
                return data
            if message is not None and message["type"] == "subscribe":
                return None
        return None


def _has_waited(error: Exception) -> bool:
    """Whether the call took as long as it may: for an answer, for a connection, or for the embedded server."""
    return any(isinstance(kind, TimeoutError | RedisTimeout | CacheAway) for kind in (error, error.__cause__))


def _kind_of(error: ResponseError) -> str:
    """The server's own word for `error`, which redis-py removes from some errors and leaves in others."""
    words = str(error).replace("-", " ").split()
    return next((word for word in KNOWN_REFUSALS if word in words), type(error).__name__)


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """A time-out that loses no cancellation.

    redis-py sends through `asyncio.wait_for`, which on Python 3.11 drops a cancellation that arrives together with its
    result: a cancelled job would go on, and a cancelled renewal would renew for ever.
    """
    task = asyncio.current_task()
    known = task.cancelling() if task is not None else 0
    async with asyncio.timeout(seconds):
        yield
    if task is not None and task.cancelling() > known:
        raise asyncio.CancelledError
