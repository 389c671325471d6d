"""A hostile client on the wire: bytes that no library would send, and what the gateway makes of them.

Each row is sent on a connection of its own. The gateway answers with a status of the table or hangs up; it answers
nothing of what was smuggled behind, and serves the next client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.gateway.world import SUN, World

BODY: Final = json.dumps(SUN).encode()
KEY: Final = b"{KEY}"  # stands for a good Authorization header
ID: Final = b"00000000-0000-4000-8000-000000000000"


def request(line: bytes, *headers: bytes, body: bytes = b"", host: bytes = b"Host: gateway") -> bytes:
    return b"\r\n".join((line + b" HTTP/1.1", host, b"Connection: close", *headers, b"", body))


def post(*headers: bytes, body: bytes = BODY) -> bytes:
    kind = b"Content-Type: application/json"
    return request(b"POST /generate-image", KEY, kind, *headers, b"Content-Length: %d" % len(body), body=body)


SMUGGLED: Final = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
WIRE: Final[dict[str, tuple[bytes, set[int]]]] = {
    "two lengths": (
        request(b"POST /generate-image", KEY, b"Content-Length: 5", b"Content-Length: 70", body=b"12345" + SMUGGLED),
        {400, 0},
    ),
    "length and chunks": (
        request(
            b"POST /generate-image",
            KEY,
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            body=b"0\r\n\r\n" + SMUGGLED,
        ),
        {400, 0},
    ),
    "an unknown coding": (
        request(b"POST /generate-image", KEY, b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
        {400, 501, 0},
    ),
    "a length with a sign": (request(b"POST /generate-image", KEY, b"Content-Length: +5", body=b"12345"), {400, 0}),
    "a negative length": (request(b"POST /generate-image", KEY, b"Content-Length: -1", body=b"12345"), {400, 0}),
    "a folded header": (request(b"GET /tasks", KEY, b"X-A: b\r\n Authorization: c"), {400, 0, 200}),
    "a blank before the colon": (request(b"GET /tasks", b"Authorization : Bearer x", KEY), {400, 0}),
    "two credentials": (request(b"GET /tasks", KEY, KEY), {401}),
    "two credentials of two kinds": (request(b"GET /tasks", KEY, b"X-API-Key: flux_x"), {401}),
    "a zero byte in a header": (request(b"GET /tasks", KEY, b"X-A: a\0b"), {400, 0, 200}),
    "bytes beyond ASCII in the credential": (request(b"GET /tasks", b"Authorization: Bearer fl\xfcx"), {401}),
    "UTF-8 in the credential": (request(b"GET /tasks", "Authorization: Bearer ключ".encode()), {401}),
    "a token of 100 KB": (request(b"GET /tasks", b"Authorization: Bearer " + b"a" * 100_000), {400, 401, 431, 0}),
    "10,000 headers": (request(b"GET /tasks", KEY, *(b"X-%d: y" % n for n in range(10_000))), {400, 431, 0, 200}),
    "a path that climbs": (request(b"GET /task/../../etc/passwd", KEY), {404}),
    "a path that climbs, encoded": (request(b"GET /task/%2e%2e%2f%2e%2e%2fetc%2fpasswd/status", KEY), {404}),
    "a task of bytes": (request(b"GET /task/%ff%fe%00/status", KEY), {404}),
    "a task with a line break": (request(b"GET /task/a%0d%0aX-Injected:%20yes/status", KEY), {404}),
    "a key pattern as task": (request(b"GET /task/*/status", KEY), {404}),
    "an absolute target": (request(b"GET http://10.0.0.1/tasks", KEY), {400, 404, 200, 0}),
    "CONNECT": (request(b"CONNECT 10.0.0.1:80", KEY), {400, 404, 405, 0}),
    "TRACE": (request(b"TRACE /tasks", KEY), {405, 404, 400, 0}),
    "a method of one's own": (request(b"BREW /tasks", KEY), {405, 400, 0}),
    "a host of line noise": (request(b"GET /tasks", KEY, host=b"Host: a b/c?d@e"), {200, 400}),
    "an expectation": (request(b"GET /tasks", KEY, b"Expect: 200-ok"), {200, 400, 417}),
    "an upgrade": (request(b"GET /tasks", KEY, b"Upgrade: websocket"), {200, 400, 403, 404}),
    "JSON nested 100,000 deep": (post(body=b"[" * 100_000), {400}),
    "an object nested 20,000 deep": (post(body=b'{"a":' * 20_000 + b"1" + b"}" * 20_000), {400, 422}),
    "NaN": (post(body=b'{"prompt": "a red sun", "guidance_scale": NaN}'), {400, 422}),
    "a number of 100,000 digits": (post(body=b'{"prompt": "a", "seed": ' + b"9" * 100_000 + b"}"), {400, 422}),
    "an exponent": (post(body=b'{"prompt": "a", "seed": 1e400}'), {400, 422}),
    "a lone surrogate": (post(body=b'{"prompt": "\\ud800", "metadata": {"a": "\\udfff"}}'), {202, 400, 422}),
    "a lone surrogate in a webhook": (post(body=b'{"prompt": "a", "webhook": "https://h.example/\\udc80"}'), {422}),
    "bytes that are no UTF-8": (post(body=b'{"prompt": "\xff\xfe"}'), {400, 422}),
    "UTF-16": (post(body='{"prompt": "a"}'.encode("utf-16")), {202, 400, 422}),
    "gzip unasked": (post(b"Content-Encoding: gzip", body=b"\x1f\x8b\x08"), {400, 415, 422}),
    "a list as webhook": (post(body=b'{"prompt": "a", "webhook": [[]]}'), {422}),
    "the gateway's own field": (post(body=b'{"prompt": "a", "gateway": {"task_id": "x"}}'), {422}),
    "a user's name in the body": (post(body=b'{"prompt": "a", "user": "eve"}'), {422}),
    "an answer split by an id": (request(b"GET /tasks", KEY, b"X-Request-ID: a%0d%0aX-Injected: yes"), {200}),
    "an idempotency key of 10 KB": (post(b"Idempotency-Key: " + b"k" * 10_000), {400, 431}),
    "a wait for ever": (request(b"GET /task/" + ID + b"/result?wait=999999999", KEY), {404, 422}),
    "a limit beyond all": (request(b"GET /tasks?limit=999999999999999999999", KEY), {422}),
    "a cursor of line noise": (request(b"GET /tasks?cursor=%00%ff", KEY), {422}),
    "a date beyond calendars": (request(b"GET /tasks?created_after=9999999999999999", KEY), {422}),
    "a range backwards": (request(b"GET /task/" + ID + b"/result", KEY, b"Range: bytes=9-1,-,--5"), {404}),
    "a last event of line noise": (request(b"GET /task/" + ID + b"/events", KEY, b"Last-Event-ID: \xff\xfe"), {404}),
    "parameters by the thousand": (request(b"GET /tasks?" + b"&a=b" * 2_000, KEY), {200, 400, 414, 431}),
    "the queue's hook, guessed": (request(b"POST /hooks/queue/" + ID + b"/" + b"0" * 32), {404}),
    "the queue's hook, beyond ASCII": (request(b"POST /hooks/queue/" + ID + b"/%c3%a9"), {404}),
    "half a request": (b"GET /tasks HTTP/1.1\r\nHost: ga", {0, 400}),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", {400, 0}),
}  # fmt: skip


ENDLESS: Final = (WIRE["half a request"][0], WIRE["no HTTP at all"][0])  # the gateway would wait for more


async def spoken(world: World, data: bytes) -> bytes:
    """What the gateway says to these bytes until it hangs up."""
    parts = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    authorization = f"Authorization: {world.headers['Authorization']}".encode()
    try:
        writer.write(data.replace(KEY, authorization))
        if data in ENDLESS:
            writer.write_eof()
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("name", WIRE)
async def test_on_the_wire(name: str, gw: World, caplog: pytest.LogCaptureFixture) -> None:
    data, statuses = WIRE[name]
    said = await spoken(gw, data)
    found = [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", said)]
    assert len(found) <= 1, "an answer to what was smuggled"
    assert (found or [0])[0] in statuses, said[:500]
    head = said.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-injected" not in head
    assert b"traceback" not in said.lower()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text
    assert (await gw.get("/healthz")).status_code == 200


async def test_a_body_that_never_ends_is_cut_off(gw: World) -> None:
    """Without a length, in chunks: what is over the bound is refused while it is read."""
    parts = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /generate-image HTTP/1.1\r\nHost: g\r\nAuthorization: {gw.headers['Authorization']}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk, sent = b"10000\r\n" + b" " * 0x10000 + b"\r\n", 0
    try:
        async with asyncio.timeout(60):
            while sent < 4 * gw.gateway.settings.gateway_max_body_bytes and not reader.at_eof():
                writer.write(chunk)
                await writer.drain()
                sent += len(chunk)
                if reader._buffer:  # type: ignore[attr-defined]
                    break
            said = await reader.readline()
    except ConnectionError:
        said = b"HTTP/1.1 413 "
    finally:
        writer.close()
    assert b" 413 " in said
    assert sent < 2 * gw.gateway.settings.gateway_max_body_bytes


async def test_log_lines_hold_no_strangers_text(gw: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="flux_engine")
    noise = "injected-by-a-stranger"
    for path in (f"/{noise}", f"/task/{noise}/status", f"/tasks?cursor={noise}", f"/hooks/queue/{noise}/{noise}"):
        await gw.get(path)
        await gw.post(path)
    await gw.get("/tasks", headers={"Authorization": f"Bearer {noise}"})
    await gw.client.request("NOISE", "/tasks")
    await gw.post("/generate-image", json={"prompt": noise, noise: 1})
    lines = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records if record.name.startswith("flux")]
    assert lines
    assert not [line for line in lines if noise in line]


@pytest.mark.parametrize("forwarded", ["1.2.3.4", "1.2.3.4, 5.6.7.8", "unknown", "::1"])
async def test_a_stranger_cannot_choose_the_address_that_counts(forwarded: str, gw: World) -> None:
    """No proxy is trusted by default: failed logins count by connection, whatever is claimed."""
    claimed: Callable[[int], dict[str, Any]] = lambda number: {  # noqa: E731
        "X-Forwarded-For": f"{number}.{forwarded}", "Forwarded": f"for={number}", "X-Real-IP": str(number),
        "Authorization": "Bearer flux_guess",
    }  # fmt: skip
    statuses = [(await gw.get("/tasks", headers=claimed(number))).status_code for number in range(25)]
    assert statuses == [401] * 20 + [429] * 5
