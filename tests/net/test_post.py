"""Posting for strangers: the guard of fetching, no redirects, and nothing read of the answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from flux_engine.errors import InputFetchFailed
from flux_engine.net.post import Answer, Poster
from tests.net.test_addresses import REFUSED_ADDRESSES
from tests.net.test_door import REFUSED_URLS
from tests.servers import free_port
from tests.web_server import loopback, own_certificate, server


async def posted(url: str, poster: Poster, timeout_s: float = 20) -> Answer:
    return await poster.post(url, body=b"{}", headers={"webhook-id": "msg_1"}, total_timeout_s=timeout_s)


async def test_body_and_headers_arrive_over_https(tmp_path: Path) -> None:
    seen: list[tuple[bytes, str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((await request.read(), request.headers["webhook-id"], request.path_qs))
        return web.Response(status=204)

    serving, trusting = own_certificate(tmp_path, "hook.example")
    async with server(handle, tls=serving) as port:
        answer = await posted(
            f"https://hook.example:{port}/a%2Fb?c=d", Poster(allow_private=True, resolve=loopback, tls=trusting)
        )
    assert (answer, seen) == (Answer(204), [(b"{}", "msg_1", "/a%2Fb?c=d")])


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_what_is_never_fetched_is_never_posted_to(url: str) -> None:
    answer = await posted(url, Poster())
    assert answer.status is None
    assert answer.reason
    assert "127.0.0.1" not in answer.reason


@pytest.mark.parametrize("address", [address for address in REFUSED_ADDRESSES if address.count(".") == 3])
async def test_a_name_that_leads_inside_is_refused_when_it_is_sent(address: str) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["93.184.216.34", address]

    answer = await posted("https://hook.example/", Poster(resolve=resolve))
    assert (answer.status, answer.reason) == (None, "the URL's address is refused; use one that is public")


async def test_a_name_that_changes_its_address_has_no_chance() -> None:
    """What `check` let through is resolved when it is sent, and the connection goes to what was checked then."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["169.254.169.254"]

    poster = Poster(resolve=resolve)
    poster.check("https://rebind.example/")
    assert asked == []
    assert (await posted("https://rebind.example/", poster)).status is None
    assert asked == ["rebind.example"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "/inside"})

    async with server(handle) as port:
        answer = await posted(f"http://hook.example:{port}/", Poster(allow_private=True, resolve=loopback))
    assert (answer, seen) == (Answer(status), ["/"])


async def test_an_endless_answer_is_not_read() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with server(endless) as port:
        answer = await posted(f"http://hook.example:{port}/", Poster(allow_private=True, resolve=loopback))
    assert answer == Answer(200)


async def test_silence_ends() -> None:
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(600)
        return web.Response()

    async with server(silent) as port:
        answer = await posted(f"http://hook.example:{port}/", Poster(allow_private=True, resolve=loopback), 0.2)
    assert answer == Answer(None, "no answer within 0.2 s")


async def test_nobody_there() -> None:
    answer = await posted(f"http://hook.example:{free_port()}/", Poster(allow_private=True, resolve=loopback))
    assert answer == Answer(None, "the connection failed or broke off")


@pytest.mark.parametrize(
    "url", ["http://hook.example/", "https://user:word@hook.example/", "hook", "https://10.0.0.1/"]
)
def test_what_is_refused_at_once(url: str) -> None:
    with pytest.raises(InputFetchFailed):
        Poster().check(url)
