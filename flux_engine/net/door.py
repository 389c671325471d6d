"""The guard of every connection to a URL that a client named.

An attacker may name an internal service, directly, by a redirect or by a name that resolves to one. So: https only.
Every address of a host name must be public, and the connection goes to the addresses that were checked, since the
connection itself resolves the name. Proxies, cookies and credentials of the environment are not used. No message holds
an address. What this leaves out: a public server that forwards to a private one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import ClientSession
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from flux_engine.errors import InputFetchFailed
from flux_engine.net.addresses import is_public
from flux_engine.net.urls import NotAUrl, parsed_url

CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def system_resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` by this machine's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressRefused(Exception):
    """A host name has an address that is not public."""


class Door:
    """What fetching and posting have in common: which URLs are opened, and over which connections.

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

    async def _addresses(self, host: str, port: int) -> list[str]:
        addresses = await self._resolve(host, port)
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressRefused
        return addresses


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
