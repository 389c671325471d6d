"""The only module that opens a URL which a client named and reads what is there.

door.py guards every connection, those of redirects too. An attacker may collect the worker's tokens, or may send bytes
without end. So: a token goes to its own host alone. Bytes are counted as they arrive, whatever the server announces,
and the whole download has a time limit.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import ClientResponse, ClientSession
from pydantic import SecretStr
from yarl import URL

from flux_engine.errors import InputFetchFailed
from flux_engine.net.door import AddressRefused, Door
from flux_engine.net.status import refused
from flux_engine.units import MIB

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = (301, 302, 303, 307, 308)
CHUNK_BYTES: Final = MIB


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, and the one host that may see it."""

    host: str
    value: SecretStr


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was written completely."""

    sha256: str
    num_bytes: int


class Fetcher(Door):
    """Opens URLs for clients.

        data = await Fetcher().fetch("https://example.com/sun.png", max_bytes=10**6, total_timeout_s=60)

    The arguments are those of Door.
    """

    async def fetch(
        self,
        url: str,
        *,
        max_bytes: int,
        total_timeout_s: float,
        allowed_hosts: tuple[str, ...] | None = None,
        token: Token | None = None,
    ) -> bytes:
        """The body behind `url`, of at most `max_bytes`.

        `allowed_hosts` are names or `*.domain` patterns that hold for redirects too; None and `*` allow any public
        host. Raises InputFetchFailed, retryable where waiting may help.
        """
        body = bytearray()
        async with self._opened(url, total_timeout_s, allowed_hosts, token) as response:
            async for chunk in _counted(response, max_bytes):
                body += chunk
        return bytes(body)

    async def fetch_to(
        self,
        destination: Path,
        url: str,
        *,
        max_bytes: int,
        total_timeout_s: float,
        allowed_hosts: tuple[str, ...] | None = None,
        token: Token | None = None,
    ) -> Fetched:
        """Write the body behind `url` to `destination` and hash it; otherwise as `fetch`.

        Raises OSError where `destination` cannot be written. After an error a partial file may remain, which the caller
        removes.
        """
        digest, count = hashlib.sha256(), 0
        try:
            with destination.open("wb", buffering=0) as file:  # unbuffered: closing writes nothing more
                async with self._opened(url, total_timeout_s, allowed_hosts, token) as response:
                    async for chunk in _counted(response, max_bytes):
                        count += len(chunk)
                        digest.update(chunk)
                        await _to_the_end(asyncio.to_thread(_write, file, chunk))
        except _NotWritten as failed:
            raise failed.reason from None
        return Fetched(sha256=digest.hexdigest(), num_bytes=count)

    @asynccontextmanager
    async def _opened(
        self, url: str, total_timeout_s: float, allowed_hosts: tuple[str, ...] | None, token: Token | None
    ) -> AsyncIterator[ClientResponse]:
        try:
            async with asyncio.timeout(total_timeout_s), self._session() as session:
                response = await self._follow(session, url, allowed_hosts, token)
                async with response:
                    yield response
        except TimeoutError as error:
            raise InputFetchFailed(
                "the download took too long; send the job again or use a faster host", retryable=True
            ) from error
        except AddressRefused as error:
            raise InputFetchFailed("the URL's address is refused; use one that is public") from error
        except aiohttp.ClientConnectorDNSError as error:
            raise InputFetchFailed("the URL's host name is not known; check its spelling") from error
        except aiohttp.ClientSSLError as error:
            raise InputFetchFailed("the URL's host has no valid certificate for https; use another host") from error
        except (aiohttp.ClientError, OSError) as error:
            raise InputFetchFailed("the download broke off; send the job again", retryable=True) from error

    async def _follow(
        self, session: ClientSession, url: str, allowed_hosts: tuple[str, ...] | None, token: Token | None
    ) -> ClientResponse:
        """The response after all redirects."""
        target = self._checked(url, allowed_hosts)
        for _ in range(MAX_REDIRECTS + 1):
            response = await session.get(target, allow_redirects=False, headers=_authorization(target, token))
            if response.status not in REDIRECTS:
                if response.status != 200:
                    response.release()
                    raise refused(response.status, response.headers)
                return response
            location = response.headers.get("Location", "")
            response.release()
            target = self._checked(location, allowed_hosts, base=target)
        raise InputFetchFailed(f"the URL redirects more than {MAX_REDIRECTS} times; send the address that it leads to")


class _NotWritten(Exception):
    """Writing the file failed, which is no fault of the network."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


def _authorization(target: URL, token: Token | None) -> Mapping[str, str]:
    if token is None or target.scheme != "https" or target.host != token.host:
        return {}
    return {"Authorization": f"Bearer {token.value.get_secret_value()}"}


async def _to_the_end(writing: Coroutine[Any, Any, None]) -> None:
    """`writing`, also through a cancellation: the file is closed after it, and its number may be another's at once."""
    task = asyncio.ensure_future(writing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # it is known, and the cancellation is what is said
        raise


def _write(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _NotWritten(error) from error


async def _counted(response: ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
    """The body in chunks. Raises InputFetchFailed once it exceeds `max_bytes`."""
    if (response.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    count = 0
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        count += len(chunk)
        if count > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> InputFetchFailed:
    return InputFetchFailed(
        f"the file at the URL is larger than {max_bytes} bytes, the limit for a download; use a smaller file"
    )
