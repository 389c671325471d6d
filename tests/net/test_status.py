"""What a status other than 200 means for the client, as a fetch meets it. Every server is a real one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from flux_engine.errors import InputFetchFailed
from flux_engine.net.fetch import Fetcher
from tests.web_server import loopback, server


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
                f"http://a.example:{port}/", max_bytes=9, total_timeout_s=60
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
                f"http://a.example:{port}/", max_bytes=9, total_timeout_s=60
            )
    assert (said or "send the job again") in refusal.value.message
    assert ("wait" in refusal.value.message) is (said is not None)


async def test_a_check_for_humans_is_named() -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=403, headers={"cf-mitigated": "challenge"})

    async with server(handle) as port:
        with pytest.raises(InputFetchFailed, match="humans") as refusal:
            await Fetcher(allow_private=True, resolve=loopback).fetch(
                f"http://a.example:{port}/", max_bytes=9, total_timeout_s=60
            )
    assert not refusal.value.retryable
