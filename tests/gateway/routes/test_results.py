"""The files of tasks over HTTP: ETag, ranges, waiting, signed links."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from flux_engine.gateway.seams import Principal
from tests.gateway.world import World, picture


@pytest.fixture
async def task_id(gw: World) -> str:
    """A finished task whose picture is that of seed 5."""
    made = await gw.create(seed=5)
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    return str(made["task_id"])


PICTURE = picture(5, width=128, height=128)


async def test_the_file_and_what_is_said_of_it(gw: World, task_id: str) -> None:
    answer = await gw.get(f"/task/{task_id}/result")
    assert answer.status_code == 200
    assert answer.content == PICTURE
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"] == f'"{hashlib.sha256(PICTURE).hexdigest()}"'
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["content-disposition"] == f'inline; filename="flux-{task_id[:8]}-0.png"'
    assert answer.headers["accept-ranges"] == "bytes"


async def test_head_is_the_same_without_the_file(gw: World, task_id: str) -> None:
    for path in (f"/task/{task_id}/result", "/", "/healthz", f"/task/{task_id}/status", "/tasks"):
        asked, answer = await gw.client.head(path), await gw.get(path)
        assert (asked.status_code, asked.content) == (200, b""), path
        for name in ("content-type", "content-length", "etag", "cache-control"):
            assert asked.headers.get(name) == answer.headers.get(name), (path, name)
    assert (await gw.client.head(f"/task/{task_id}/result", headers={"Authorization": ""})).status_code == 401
    assert (await gw.client.head("/generate-image")).status_code == 405
    assert (await gw.client.head("/events")).status_code == 405
    assert 'method="HEAD",route="/task/{task_id}/result",status="200"' in (await gw.get("/metrics")).text


async def test_parts_of_it(gw: World, task_id: str) -> None:
    size = len(PICTURE)
    table = [
        ("bytes=0-9", 206, PICTURE[:10]),
        ("bytes=10-", 206, PICTURE[10:]),
        ("bytes=-7", 206, PICTURE[-7:]),
        (f"bytes=0-{size * 2}", 206, PICTURE),
        (f"bytes=-{size * 2}", 206, PICTURE),
        ("bytes=9-5", 200, PICTURE),
        ("bytes=a-b", 200, PICTURE),
        ("bytes=0-1,4-5", 200, PICTURE),
        ("items=0-1", 200, PICTURE),
    ]
    for header, status, content in table:
        answer = await gw.get(f"/task/{task_id}/result", headers={"Range": header})
        assert (answer.status_code, answer.content) == (status, content), header
    answer = await gw.get(f"/task/{task_id}/result", headers={"Range": "bytes=2-4"})
    assert answer.headers["content-range"] == f"bytes 2-4/{size}"
    for header in (f"bytes={size}-", "bytes=-0"):
        outside = await gw.get(f"/task/{task_id}/result", headers={"Range": header})
        assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")


async def test_conditions(gw: World, task_id: str) -> None:
    path = f"/task/{task_id}/result"
    etag = (await gw.get(path)).headers["etag"]
    for header in (etag, f'"other", W/{etag}', "*"):
        answer = await gw.get(path, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content) == (304, b"")
    assert (await gw.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    both = {"Range": "bytes=0-1"}
    assert (await gw.get(path, headers=both | {"If-Range": etag})).status_code == 206
    assert (await gw.get(path, headers=both | {"If-Range": '"other"'})).status_code == 200


async def test_an_index_beyond_the_last(gw: World, task_id: str) -> None:
    answer = await gw.get(f"/task/{task_id}/result", params={"index": 1})
    assert (answer.status_code, answer.json()["field"]) == (404, "index")
    assert (await gw.get(f"/task/{task_id}/result", params={"index": -1})).status_code == 422


async def test_not_ready_and_waiting(gw: World) -> None:
    made = await gw.create()
    path = f"/task/{made['task_id']}/result"
    answer = await gw.get(path)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")
    assert int(answer.headers["retry-after"]) >= 1
    asked_at = time.monotonic()
    waiting = asyncio.create_task(gw.get(path, params={"wait": 30}))
    gw.hand.finish(await gw.hand.take())
    answer = await waiting
    assert answer.status_code == 200 or time.monotonic() - asked_at >= 30  # the machine stalled for as long


async def test_a_signed_link_needs_no_header_and_opens_nothing_else(gw: World, task_id: str) -> None:
    ada = Principal("ada", frozenset(["read"]))
    path = f"/task/{task_id}/result?index=0"
    link = gw.gateway.security.sign_path(path, ada, seconds=900)
    del gw.client.headers["Authorization"]
    assert (await gw.get(link)).content == PICTURE
    assert (await gw.get(link.replace("index=0", "index=1"))).status_code == 401
    assert (await gw.get(link.replace("/result", "/status"))).status_code == 401
    assert (await gw.get(path)).status_code == 401
    stranger = gw.gateway.security.sign_path(path, Principal("bob", frozenset(["read"])), seconds=900)
    assert (await gw.get(stranger)).status_code == 404


async def test_a_file_that_was_lost(gw: World, task_id: str) -> None:
    task = await gw.gateway.ledger.get(task_id)
    assert task is not None
    await gw.gateway.results.forget(str(task.files[0]["key"]))
    answer = await gw.get(f"/task/{task_id}/result")
    assert (answer.status_code, answer.json()["code"]) == (410, "expired")
