"""Where a picture comes from: a URL, a data URI or base64, and what is refused of each."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from aiohttp import web

from flux_engine.errors import FluxError
from flux_engine.inputs.pictures import MAX_BYTES, PictureSource
from flux_engine.net.fetch import Fetcher
from tests.web_server import own_certificate, server

DATA = bytes(range(256)) * 3
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize("written", [TEXT, f"data:image/png;base64,{TEXT}"], ids=["plain", "data uri"])
async def test_a_picture_may_come_with_the_job(written: str) -> None:
    assert await PictureSource(Fetcher()).get(written, "image") == DATA


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("not base64 at all!", "invalid_input"),
        ("AAAAA", "invalid_input"),
        ("data:image/png,plain", "invalid_input"),
        ("data:image/png;base64,%%%", "invalid_input"),
        ("http://example.com/a.png", "invalid_input"),
        ("file:///etc/passwd", "invalid_input"),
        ("ftp://example.com/a.png", "invalid_input"),
        ("example.com/a.png", "invalid_input"),
        ("//example.com/a.png", "invalid_input"),
        ("blob:https://app.example/5f3c", "invalid_input"),
        ("C:\\Users\\me\\sun.png", "invalid_input"),
        ("./sun.webp", "invalid_input"),
        ("sun.jpeg", "invalid_input"),
        ("https://127.0.0.1/a.png", "input_fetch_failed"),
        ("https://169.254.169.254/latest/meta-data", "input_fetch_failed"),
        ("https://[::1]/a.png", "input_fetch_failed"),
        ("A" * (MAX_BYTES // 3 * 4 + 8), "input_fetch_failed"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_refused(written: str, code: str) -> None:
    with pytest.raises(FluxError) as refused:
        await PictureSource(Fetcher()).get(written, "image")
    assert (refused.value.code, refused.value.field) == (code, "image")


async def test_a_data_uri_without_bytes_is_no_fault_of_a_host() -> None:
    with pytest.raises(FluxError, match="data URI without bytes"):
        await PictureSource(Fetcher()).get("data:image/png;base64,", "image")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<!doctype html><title>Log in</title>", "asks for a login"),
        (b"<html><title>Just a moment...</title>", "checks for a human"),
        (b'{"error": "expired"}', 'says "expired"'),
        (b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>", "ExpiredToken"),
        (b"PK\x03\x04" + bytes(30), "zip archive"),
        (b"", "empty"),
    ],
)
async def test_another_thing_in_place_of_a_picture_is_named(tmp_path: Path, body: bytes, said: str) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=body)

    of_server, of_client = own_certificate(tmp_path, "localhost")
    async with server(handle, tls=of_server) as port:
        with pytest.raises(FluxError) as refused:
            await PictureSource(Fetcher(allow_private=True, tls=of_client)).get(f"https://localhost:{port}/x", "mask")
    assert said in refused.value.message
    assert (refused.value.code, refused.value.field) == ("invalid_input", "mask")


async def test_a_picture_behind_a_url_and_one_that_is_gone(tmp_path: Path) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=DATA) if request.path == "/sun.png" else web.Response(status=503)

    of_server, of_client = own_certificate(tmp_path, "localhost")
    source = PictureSource(Fetcher(allow_private=True, tls=of_client))
    async with server(handle, tls=of_server) as port:
        assert await source.get(f"https://localhost:{port}/sun.png", "image") == DATA
        with pytest.raises(FluxError) as refused:
            await source.get(f"https://localhost:{port}/gone.png", "mask")
    assert (refused.value.code, refused.value.field, refused.value.retryable) == ("input_fetch_failed", "mask", True)
