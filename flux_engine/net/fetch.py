"""The only module that opens a URL which a client named.

An attacker may name an internal service, directly, by a redirect or by a name that resolves to one; may collect the
worker's tokens; or may send bytes without end. So: https only. Every address of a host name must be public, and the
connection goes to the addresses that were checked, since the connection itself resolves the name. A redirect is checked
like the first URL. A token goes to its own host alone. Bytes are counted as they arrive, whatever the server announces,
and the whole download has a time limit. Proxies, cookies and credentials of the environment are not used. No message
holds an address. What this leaves out: a public server that forwards to a private one.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import FileIO
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import ClientResponse, ClientSession
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr
from yarl import URL

from flux_engine.errors import InputFetchFailed
from flux_engine.net.addresses import is_public
from flux_engine.net.urls import NotAUrl, parsed_url
from flux_engine.units import MIB

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = (301, 302, 303, 307, 308)
CHUNK_BYTES: Final = MIB
MAX_RETRY_AFTER_S: Final = 7 * 24 * 3600
PASSING: Final = (408, 425, 429)  # besides 5xx: waiting may help

Resolve = Callable[[str, int], Awaitable[list[str]]]


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


async def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` by this machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Opens URLs for clients.

        data = await Fetcher().fetch("https://example.com/sun.png", max_bytes=10**6, total_timeout_s=60)

    `allow_private` permits http and private addresses, for an operator's tests. `resolve` and `tls` replace the
    machine's resolver and certificate authorities.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolve: Resolve = system_resolve,
        tls: ssl.SSLContext | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s

    def check(self, url: str) -> None:
        """Raises InputFetchFailed for a URL that is never opened, before its host name is looked up."""
        self._checked(url, None)

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
                        await asyncio.to_thread(_write, file, chunk)
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

    def _session(self) -> ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_CheckedResolver(self._addresses), use_dns_cache=False, force_close=True, ssl=self._tls or True
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(sock_connect=self._connect_timeout_s, sock_read=self._read_timeout_s),
            headers={"User-Agent": "flux-engine", "Accept": "*/*", "Accept-Encoding": "identity"},
            auto_decompress=False,  # a small body cannot become a large one
            trust_env=False,
        )

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
                    raise _refused(response)
                return response
            location = response.headers.get("Location", "")
            response.release()
            target = self._checked(location, allowed_hosts, base=target)
        raise InputFetchFailed(f"the URL redirects more than {MAX_REDIRECTS} times; send the address that it leads to")

    def _checked(self, url: str, allowed_hosts: tuple[str, ...] | None, *, base: URL | None = None) -> URL:
        """`url` parsed, with scheme and host checked; the addresses of names are checked on connecting."""
        try:
            target = parsed_url(url, base=base)
        except NotAUrl as error:
            what = "the URL" if base is None else "the address that the URL redirects to"
            raise InputFetchFailed(f"{what} is not a valid one: {error}") from None
        schemes = ("https", "http") if self._allow_private else ("https",)
        if target.scheme not in schemes or not target.host:
            raise InputFetchFailed("the URL, and every one that it redirects to, must begin with https://")
        if target.user is not None or target.password is not None:
            raise InputFetchFailed("the URL holds a user name or password; use a link that needs none")
        host = target.host.lower().rstrip(".")
        if allowed_hosts is not None and not any(_matches(host, pattern) for pattern in allowed_hosts):
            allowed = ", ".join(pattern for pattern in allowed_hosts if not pattern.startswith("*"))
            raise InputFetchFailed(
                f"the URL leads to a host that this worker does not load from; it loads from {allowed}"
            )
        is_literal = ":" in host or host.replace(".", "").isdigit()  # aiohttp connects to these without its resolver
        if is_literal and not self._allow_private and not is_public(host):
            raise InputFetchFailed("the URL's address is refused; use one that is public")
        return target

    async def _addresses(self, host: str, port: int) -> list[str]:
        addresses = await self._resolve(host, port)
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressRefused
        return addresses


class AddressRefused(Exception):
    """A host name has an address that is not public."""


class _NotWritten(Exception):
    """Writing the file failed, which is no fault of the network."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


class _CheckedResolver(AbstractResolver):
    """aiohttp's resolver: the addresses that it connects to are those that were checked."""

    def __init__(self, addresses: Resolve) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._addresses(host, port)
        ]

    async def close(self) -> None:
        """Holds nothing."""


def _matches(host: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _authorization(target: URL, token: Token | None) -> Mapping[str, str]:
    if token is None or target.scheme != "https" or target.host != token.host:
        return {}
    return {"Authorization": f"Bearer {token.value.get_secret_value()}"}


def _refused(response: ClientResponse) -> InputFetchFailed:
    """What an answer other than 200 means for the client."""
    status = response.status
    if response.headers.get("cf-mitigated") == "challenge":
        return InputFetchFailed(
            f"the host answers with a check for humans (status {status}), which blocks downloads; use another host",
            status=status,
        )
    if status in (401, 403):
        return InputFetchFailed(
            f"the host refuses the download (status {status}): it needs a token or a public link", status=status
        )
    if status in (404, 410):
        return InputFetchFailed(f"there is nothing at the URL (status {status}); check its spelling", status=status)
    if status in PASSING or status >= 500:
        wait = asked_to_wait(response.headers.get("Retry-After", ""))
        return InputFetchFailed(
            f"the host answered with status {status} in place of the file; {wait}send the job again",
            retryable=True,
            status=status,
        )
    return InputFetchFailed(
        f"the host answered with status {status} in place of the file; check the URL in a browser", status=status
    )


def asked_to_wait(header: str) -> str:
    """A server's `Retry-After` in words, such as `wait 120 s, as it asks, and `; empty without one that can be read."""
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = int(text)
    else:
        try:
            seconds = math.ceil(parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, OverflowError, OSError):
            return ""
    return f"wait {seconds} s, as it asks, and " if 0 < seconds <= MAX_RETRY_AFTER_S else ""


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
