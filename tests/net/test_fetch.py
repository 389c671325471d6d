"""Fetching for strangers: what is refused, what is bounded, and who sees the token. Every server is a real one."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from flux_engine.errors import InputFetchFailed
from flux_engine.net.addresses import is_public
from flux_engine.net.fetch import Fetcher, Token
from tests.web_server import loopback, own_certificate, server

REFUSED_ADDRESSES = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.5",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:10.0.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "localhost",
    "",
]
PUBLIC_ADDRESSES = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


REFUSED_URLS = [
    "http://example.com/x",
    "ftp://example.com/x",
    "file:///etc/passwd",
    "https:///x",
    "https://user:secret@example.com/x",
    "https://127.0.0.1/x",
    "https://127.0.0.1./x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0177.0.0.1/x",
    "https://0x7f000001/x",
    "https://0x7f.1/x",
    "https://１２７.0.0.1/x",
    "https://①②⑦.0.0.1/x",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[::ffff:7f00:1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://[2001:0:7f00:1::]/x",
    "https://[fe80::5efe:7f00:1]/x",
    "https://[2606:4700::5efe:7f00:1]/x",
    "https://[fe80::1%25eth0]/x",
    "https://localhost/x",
    "https://localhost.localdomain/x",
    "https://exa mple.com/x",
    "https://example.com\\@127.0.0.1/x",
    "https://example.com\n.evil/x",
    "https://example.com:99999/x",
    "https://" + "a" * 5000,
]


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_urls_that_must_be_refused(url: str) -> None:
    with pytest.raises(InputFetchFailed) as refusal:
        await Fetcher().fetch(url, max_bytes=100, total_timeout_s=5)
    assert not refusal.value.retryable
    assert "127.0.0.1" not in refusal.value.message
    assert "::1" not in refusal.value.message


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"]])
async def test_a_name_with_one_private_address_is_refused(addresses: list[str]) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return addresses

    with pytest.raises(InputFetchFailed, match="refused") as refusal:
        await Fetcher(resolve=resolve).fetch("https://inner.example/x", max_bytes=9, total_timeout_s=5)
    assert not any(address in refusal.value.message for address in addresses)


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A name that changes its address between check and use has no chance: it is asked once for each connection."""
    asked = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"x")

    async with server(handle) as port:
        fetcher = Fetcher(allow_private=True, resolve=resolve)
        assert await fetcher.fetch(f"http://rebind.example:{port}/", max_bytes=9, total_timeout_s=5) == b"x"
    assert asked == ["rebind.example"]


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
            await fetcher.fetch(f"https://outer.example:{port}/a", max_bytes=9, total_timeout_s=5)
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
        assert await fetcher.fetch(f"http://a.example:{port}/5", max_bytes=9, total_timeout_s=5) == b"end"
        with pytest.raises(InputFetchFailed, match="more than 5"):
            await fetcher.fetch(f"http://a.example:{port}/6", max_bytes=9, total_timeout_s=5)
    assert len(hops) == 6 + 6


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [("good.example", True), ("a.files.example", True), ("files.example", False), ("evilgood.example", False)],
)
async def test_only_allowed_hosts(host: str, is_allowed: bool) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"x")

    allowed = ("good.example", "*.files.example")
    async with server(handle) as port:
        fetch = Fetcher(allow_private=True, resolve=loopback).fetch(
            f"http://{host}:{port}/", max_bytes=9, total_timeout_s=5, allowed_hosts=allowed
        )
        if is_allowed:
            assert await fetch == b"x"
        else:
            with pytest.raises(InputFetchFailed, match=r"good\.example"):
                await fetch


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
        await fetcher.fetch(f"https://own.example:{port}/there", max_bytes=9, total_timeout_s=5, token=token)
    async with server(handle) as port:
        await fetcher.fetch(f"http://own.example:{port}/plain", max_bytes=9, total_timeout_s=5, token=token)
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
                    tmp_path / "x", f"http://a.example:{port}/", max_bytes=1_000_000, total_timeout_s=5
                )
        assert (tmp_path / "x").stat().st_size <= 1_000_000


async def test_a_compressed_body_stays_compressed() -> None:
    async def handle(_request: web.Request) -> web.Response:
        response = web.Response(body=b"\0" * 1_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with server(handle) as port:
        body = await Fetcher(allow_private=True, resolve=loopback).fetch(
            f"http://a.example:{port}/", max_bytes=5_000, total_timeout_s=5
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
                tmp_path / "x", f"http://a.example:{port}/", max_bytes=1000, total_timeout_s=5
            )
    assert refusal.value.retryable


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, True) for status in (408, 425, 429, 500, 502, 503, 504, 522, 529)),
        *((status, False) for status in (204, 206, 304, 400, 401, 402, 403, 404, 410, 418, 451)),
    ],
)
async def test_a_status_that_may_pass_is_retryable(status: int, retryable: bool) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with server(handle) as port:
        with pytest.raises(InputFetchFailed, match=str(status)) as refusal:
            await Fetcher(allow_private=True, resolve=loopback).fetch(
                f"http://a.example:{port}/", max_bytes=9, total_timeout_s=5
            )
    assert (refusal.value.retryable, refusal.value.status) == (retryable, status)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("120", "wait 120 s"),
        (" 3 ", "wait 3 s"),
        ("a date", "wait 1"),
        ("0", None),
        ("-5", None),
        ("soon", None),
        ("9" * 400, None),
        ("Mon, 01 Jan 2001 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
    ],
)
async def test_the_servers_own_wish_to_wait_is_in_the_message(header: str, said: str | None) -> None:
    if header == "a date":
        header = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": header})

    async with server(handle) as port:
        with pytest.raises(InputFetchFailed, match="429") as refusal:
            await Fetcher(allow_private=True, resolve=loopback).fetch(
                f"http://a.example:{port}/", max_bytes=9, total_timeout_s=5
            )
    assert (said or "send the job again") in refusal.value.message
    assert ("wait" in refusal.value.message) is (said is not None)


async def test_a_check_for_humans_is_named() -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=403, headers={"cf-mitigated": "challenge"})

    async with server(handle) as port:
        with pytest.raises(InputFetchFailed, match="humans") as refusal:
            await Fetcher(allow_private=True, resolve=loopback).fetch(
                f"http://a.example:{port}/", max_bytes=9, total_timeout_s=5
            )
    assert not refusal.value.retryable


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
            await fetcher.fetch(f"http://a.example:{port}{path}", max_bytes=9, total_timeout_s=5)
    assert asked == [target, "/first", target]


async def test_a_file_is_hashed_on_its_way(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=content)

    async with server(handle) as port:
        fetched = await Fetcher(allow_private=True, resolve=loopback).fetch_to(
            tmp_path / "x", f"http://a.example:{port}/", max_bytes=10**7, total_timeout_s=5
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


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"x")

    async with server(handle) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback)
        assert await fetcher.fetch(f"http://a.example:{port}/", max_bytes=9, total_timeout_s=5) == b"x"


def test_no_other_module_can_open_a_url() -> None:
    """`fetch` is for what clients name; the platform, the hub, Redis and the bucket are named by the operator."""
    root = Path(__file__).parents[2]
    clients = {
        "aiohttp",
        "requests",
        "httpx",
        "httpx2",
        "urllib3",
        "http.client",
        "urllib.request",
        "socket",
        "ftplib",
        "pycurl",
    }
    allowed = {
        "flux_engine/net/fetch.py": {"aiohttp", "socket"},
        "flux_engine/net/post.py": {"aiohttp"},
        "flux_engine/results/bucket_client.py": {"urllib3", "socket"},  # boto3's, with bounds
        "flux_engine/cache/embedded.py": {"socket"},  # asks our own server on its unix socket
        "flux_engine/results/s3_config.py": {
            "socket"
        },  # resolves the endpoint's name, to refuse one that is not public
        "flux_engine/runpod_sdk.py": {"aiohttp"},  # posts to the platform
        "flux_engine/queues/runpod.py": {"httpx2"},  # asks the platform
        "flux_engine/queues/worker_health.py": {"aiohttp"},  # answers probes, asks nothing
        "flux_engine/queues/celery_worker.py": {"socket"},  # this host's name
        "flux_engine/gateway/tasks/results.py": {"httpx2"},  # results, where the workers say they are
    }
    for path in [*(root / "flux_engine").rglob("*.py"), root / "handler.py"]:
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            for module in modules:
                opens = not clients.isdisjoint({module, module.split(".")[0]})
                assert not opens or module.split(".")[0] in allowed.get(name, set()), f"{name} imports {module}"
        assert ".download(" not in path.read_text(encoding="utf-8"), name
