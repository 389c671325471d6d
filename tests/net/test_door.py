"""Which URLs are opened, and over which connections, as a fetch meets it. Every server is a real one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from aiohttp import web

from flux_engine.errors import InputFetchFailed
from flux_engine.net.fetch import Fetcher
from tests.web_server import loopback, server

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
        await Fetcher().fetch(url, max_bytes=100, total_timeout_s=60)
    assert not refusal.value.retryable
    assert "127.0.0.1" not in refusal.value.message
    assert "::1" not in refusal.value.message


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"]])
async def test_a_name_with_one_private_address_is_refused(addresses: list[str]) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return addresses

    with pytest.raises(InputFetchFailed, match="refused") as refusal:
        await Fetcher(resolve=resolve).fetch("https://inner.example/x", max_bytes=9, total_timeout_s=60)
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
        assert await fetcher.fetch(f"http://rebind.example:{port}/", max_bytes=9, total_timeout_s=60) == b"x"
    assert asked == ["rebind.example"]


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
            f"http://{host}:{port}/", max_bytes=9, total_timeout_s=60, allowed_hosts=allowed
        )
        if is_allowed:
            assert await fetch == b"x"
        else:
            with pytest.raises(InputFetchFailed, match=r"good\.example"):
                await fetch


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=b"x")

    async with server(handle) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback)
        assert await fetcher.fetch(f"http://a.example:{port}/", max_bytes=9, total_timeout_s=60) == b"x"


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
        "flux_engine/net/door.py": {"aiohttp", "socket"},
        "flux_engine/net/fetch.py": {"aiohttp"},
        "flux_engine/net/post.py": {"aiohttp"},
        "flux_engine/results/bucket_client.py": {"urllib3", "socket"},  # boto3's, with bounds
        "flux_engine/cache/embedded.py": {"socket"},  # asks our own server on its unix socket
        "flux_engine/results/s3_config.py": {
            "socket"
        },  # resolves the endpoint's name, to refuse one that is not public
        "flux_engine/runpod_sdk/senders.py": {"aiohttp"},  # posts to the platform
        "flux_engine/runpod_sdk/results.py": {"aiohttp"},  # names the errors of such a post
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
