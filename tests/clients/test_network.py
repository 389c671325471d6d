"""What the Python client makes of answers that only a network gives: redirects, damaged bodies, texts of every kind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from flux_client import AsyncFluxClient, File, NotReached

from tests.web_server import server

DATA = b"a picture"


@dataclass
class Endpoint:
    """Answers every request in one way, and keeps what came."""

    seen: list[tuple[str, bytes, str | None]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, await request.read(), request.headers.get("Authorization")))
        if request.path == "/moved":
            raise web.HTTPFound("/picture")
        if request.path == "/picture":
            return web.Response(body=DATA)
        if request.path == "/damaged":
            return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})
        return web.json_response({"id": "job-1"})


def file_at(url: str) -> File:
    sha256 = hashlib.sha256(DATA).hexdigest()
    return File(content_type="image/png", width=8, height=8, sha256=sha256, bytes=len(DATA), url=url)


async def test_a_lone_surrogate_is_sent_for_the_worker_to_drop() -> None:
    endpoint = Endpoint()
    async with server(endpoint.handle) as port:
        async with AsyncFluxClient("e", api_key="k", base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.submit({"prompt": "größer \ud83c", "seed": 1})).id == "job-1"
    assert endpoint.seen == [("/e/run", rb'{"input":{"prompt":"gr\u00f6\u00dfer \ud83c","seed":1}}', "Bearer k")]


async def test_a_files_address_may_lead_to_another() -> None:
    endpoint = Endpoint()
    async with server(endpoint.handle) as port, AsyncFluxClient("e", api_key="k") as client:
        assert await client.read(file_at(f"http://127.0.0.1:{port}/moved")) == DATA
    assert [(path, key) for path, _, key in endpoint.seen] == [("/moved", None), ("/picture", None)]


async def test_a_body_that_cannot_be_unpacked_is_asked_for_again() -> None:
    endpoint = Endpoint()
    async with server(endpoint.handle) as port, AsyncFluxClient("e", api_key="k", tries=2) as client:
        with pytest.raises(NotReached, match="DecodingError"):
            await client.read(file_at(f"http://127.0.0.1:{port}/damaged"))
    assert len(endpoint.seen) == 2
