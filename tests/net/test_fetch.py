"""Fetching for strangers: where redirects lead, what is bounded, and who sees the token. Every server is a real one."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from flux_engine.errors import InputFetchFailed
from flux_engine.net.fetch import Fetcher, Token
from tests.waiting import until
from tests.web_server import loopback, own_certificate, server


@pytest.mark.parametrize(
    "location", ["https://10.0.0.1/x", "http://example.com/", "https://[::1]/", "file:///etc/passwd", "", "//0x7f.1/"]
)
async def test_a_redirect_is_checked_like_the_first_url(location: str, tmp_path: Path) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": location})

    async def resolve(host: str, _port: int) -> list[str]:
        return [host if host[0].isdigit() and "x" not in host else "127.0.0.1"]

    class FirstHostIsFine(Fetcher):
        async def _addresses(self, host: str, port: int) -> list[str]:
            if host == "outer.example":
                return ["127.0.0.1"]
            return await super()._addresses(host, port)

    serving, trusting = own_certificate(tmp_path, "outer.example")
    async with server(redirect, tls=serving) as port:
        fetcher = FirstHostIsFine(resolve=resolve, tls=trusting, allow_private=False)
        with pytest.raises(InputFetchFailed) as refusal:
            await fetcher.fetch(f"https://outer.example:{port}/a", max_bytes=9, total_timeout_s=60)
    assert not refusal.value.retryable


async def test_at_most_five_redirects() -> None:
    hops = []

    async def redirect(request: web.Request) -> web.Response:
        hops.append(request.path)
        left = int(request.path[1:])
        if left == 0:
            return web.Response(body=b"end")
        return web.Response(status=302, headers={"Location": f"/{left - 1}"})

    async with server(redirect) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback)
        assert await fetcher.fetch(f"http://a.example:{port}/5", max_bytes=9, total_timeout_s=60) == b"end"
        with pytest.raises(InputFetchFailed, match="more than 5"):
            await fetcher.fetch(f"http://a.example:{port}/6", max_bytes=9, total_timeout_s=60)
    assert len(hops) == 6 + 6


async def test_the_token_goes_to_its_own_host_over_https_only(tmp_path: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.url.host or "", request.headers.get("Authorization")))
        if request.path == "/there":
            return web.Response(status=307, headers={"Location": f"https://other.example:{port}/back"})
        if request.path == "/back":
            return web.Response(status=307, headers={"Location": f"https://sub.own.example:{port}/end"})
        return web.Response(body=b"x")

    serving, trusting = own_certificate(tmp_path, "own.example", "other.example", "sub.own.example")
    token = Token("own.example", SecretStr("hidden"))
    fetcher = Fetcher(allow_private=True, resolve=loopback, tls=trusting)
    async with server(handle, tls=serving) as port:
        await fetcher.fetch(f"https://own.example:{port}/there", max_bytes=9, total_timeout_s=60, token=token)
    async with server(handle) as port:
        await fetcher.fetch(f"http://own.example:{port}/plain", max_bytes=9, total_timeout_s=60, token=token)
    assert seen == [
        ("own.example", "Bearer hidden"),
        ("other.example", None),
        ("sub.own.example", None),
        ("own.example", None),
    ]


async def test_size_is_counted_whatever_the_server_says(tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 65536)
        return response

    async def announced(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 2_000_000)

    fetcher = Fetcher(allow_private=True, resolve=loopback)
    for handle in (endless, announced):
        async with server(handle) as port:
            with pytest.raises(InputFetchFailed, match="larger than 1000000"):
                await fetcher.fetch_to(
                    tmp_path / "x", f"http://a.example:{port}/", max_bytes=1_000_000, total_timeout_s=60
                )
        assert (tmp_path / "x").stat().st_size <= 1_000_000


async def test_a_compressed_body_stays_compressed() -> None:
    async def handle(_request: web.Request) -> web.Response:
        response = web.Response(body=b"\0" * 1_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with server(handle) as port:
        body = await Fetcher(allow_private=True, resolve=loopback).fetch(
            f"http://a.example:{port}/", max_bytes=5_000, total_timeout_s=60
        )
    assert len(body) < 5_000


async def test_a_slow_server_is_left(tmp_path: Path) -> None:
    async def drops(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(600):
            await response.write(b"x")
            await asyncio.sleep(0.1)  # the time is the subject: each byte arrives before a read times out
        return response

    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)  # the time is the subject: no byte arrives before a read times out
        return web.Response()

    for handle, fetcher in (
        (drops, Fetcher(allow_private=True, resolve=loopback)),
        (silent, Fetcher(allow_private=True, resolve=loopback, read_timeout_s=0.3)),
    ):
        async with server(handle) as port:
            begun = time.monotonic()
            with pytest.raises(InputFetchFailed, match="too long") as refusal:
                await fetcher.fetch_to(tmp_path / "x", f"http://a.example:{port}/", max_bytes=1000, total_timeout_s=0.5)
            assert time.monotonic() - begun < 20  # either server would take a minute
            assert refusal.value.retryable


async def test_a_body_that_breaks_off_is_no_file(tmp_path: Path) -> None:
    async def short(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return response

    async with server(short) as port:
        with pytest.raises(InputFetchFailed, match="broke off") as refusal:
            await Fetcher(allow_private=True, resolve=loopback).fetch_to(
                tmp_path / "x", f"http://a.example:{port}/", max_bytes=1000, total_timeout_s=60
            )
    assert refusal.value.retryable


SIGNED = (
    "/a%27b%28c%29.png?X-Key=AK%2F2026%2Feu&Signature=q%7E%2Fz%2Bk%3D%3D",
    "/a'b(c)~.png?x=a+b&y=%20",
    "/%e4%C3%BC/%2e%2E/x//y/./z?q=%00&&=&a=1;b=2,c=[3]{4}|5^6`7",
    "/100%/50%2?a=%zz",
    "/x?token=eyJ.a-b_c~d==&url=https://other.example/%2F?z=1",
)


@pytest.mark.parametrize("target", SIGNED)
async def test_path_and_query_arrive_byte_for_byte_on_redirects_too(target: str) -> None:
    asked = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        if request.raw_path == "/first":
            return web.Response(status=302, headers={"Location": target})
        return web.Response(body=b"x")

    async with server(handle) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback)
        for path in (target, "/first"):
            await fetcher.fetch(f"http://a.example:{port}{path}", max_bytes=9, total_timeout_s=60)
    assert asked == [target, "/first", target]


async def test_a_file_is_hashed_on_its_way(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=content)

    async with server(handle) as port:
        fetched = await Fetcher(allow_private=True, resolve=loopback).fetch_to(
            tmp_path / "x", f"http://a.example:{port}/", max_bytes=10**7, total_timeout_s=60
        )
    assert fetched.sha256 == hashlib.sha256(content).hexdigest()
    assert fetched.num_bytes == len(content)
    assert (tmp_path / "x").read_bytes() == content


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
async def test_a_full_disk_is_no_fault_of_the_network() -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(3_000_000))

    async with server(handle) as port:
        with pytest.raises(OSError, match="No space left"):
            await Fetcher(allow_private=True, resolve=loopback).fetch_to(
                Path("/dev/full"), f"http://a.example:{port}/", max_bytes=10**7, total_timeout_s=20
            )


async def test_a_cancelled_download_ends_when_nothing_is_written_any_more(tmp_path: Path) -> None:
    """Else the file is closed under the thread that writes to it, and its number may be another file's by then."""

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(300_000))

    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)

    def is_full() -> bool:
        return fcntl.ioctl(reading, termios.FIONREAD, bytes(4)) == (4096).to_bytes(4, sys.byteorder)

    async with server(handle) as port:
        fetching = asyncio.create_task(
            Fetcher(allow_private=True, resolve=loopback).fetch_to(
                tmp_path / "pipe", f"http://a.example:{port}/", max_bytes=10**7, total_timeout_s=60
            )
        )
        await until(is_full)  # so the thread waits until somebody reads
        fetching.cancel()
        _, writing = await asyncio.wait([fetching], timeout=0.3)
        assert writing
        while not fetching.done():
            with suppress(BlockingIOError):
                os.read(reading, 65_536)
            await asyncio.sleep(0)
        assert fetching.cancelled()
    os.close(reading)
