"""Server-sent events: what comes, in what order, and how a stream goes on where it broke."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flux_engine.gateway.tasks.events import stream_id
from flux_engine.gateway.tasks.ledger.lua import USER_EVENTS
from tests.gateway.world import WITHIN_S, World, world
from tests.servers import RedisProcess


@dataclass(frozen=True)
class Told:
    id: str
    name: str
    data: Any


@asynccontextmanager
async def stream(gw: World, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Told]]:
    async with gw.client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _parsed(answer.aiter_lines())


async def _parsed(lines: AsyncIterator[str]) -> AsyncIterator[Told]:
    held: dict[str, str] = {}
    async for line in lines:
        if line == "" and "data" in held:
            yield Told(held.get("id", ""), held["event"], json.loads(held["data"]))
            held = {}
        name, _, value = line.partition(": ")
        held[name] = value


async def rest(events: AsyncIterator[Told]) -> list[Told]:
    async with asyncio.timeout(WITHIN_S):
        return [event async for event in events]


async def test_a_task_from_its_snapshot_to_its_end(gw: World) -> None:
    made = await gw.create()
    async with stream(gw, f"/task/{made['task_id']}/events") as events:
        first = await anext(events)
        assert (first.name, first.data["status"], first.data["task_id"]) == ("snapshot", "queued", made["task_id"])
        job = await gw.hand.take()
        gw.hand.progress(job, 0.3, seq=1, step=1, total_steps=2, preview="data:image/webp;base64,AAAA")
        told = [await anext(events)]
        while told[-1].name != "preview":
            told.append(await anext(events))
        assert told[-1].data["preview"] == "data:image/webp;base64,AAAA"
        assert (told[-1].data["step"], told[-1].data["total_steps"]) == (1, 2)
        gw.hand.finish(job)
        told += await rest(events)
    assert told[-1].name == "completed"
    assert told[-1].data["result"]["images"][0]["url"].endswith("/result?index=0")
    assert [event.name for event in told[:-1] if event.name not in ("status", "preview")] == []
    ids = [stream_id(event.id) for event in told]
    assert ids == sorted(set(ids))


async def test_progress_never_falls_though_a_worker_begins_again(gw: World) -> None:
    made = await gw.create()
    async with stream(gw, f"/task/{made['task_id']}/events") as events:
        job = await gw.hand.take()
        gw.hand.progress(job, 0.6, seq=9)
        while (await anext(events)).data["progress"] < 0.6:
            pass
        gw.hand.progress(job, 0.1, seq=1)
        await gw.gateway.sweep.look.at(made["task_id"])
        gw.hand.progress(job, 0.7, seq=4)
        await gw.gateway.sweep.look.at(made["task_id"])
        gw.hand.finish(job)
        told = await rest(events)
    progress = [event.data["progress"] for event in told]
    assert progress == sorted(progress)
    assert min(progress) >= 0.6


async def test_a_broken_stream_goes_on(gw: World) -> None:
    made = await gw.create()
    path = f"/task/{made['task_id']}/events"
    async with stream(gw, path) as events:
        last = await anext(events)
    job = await gw.hand.take()
    gw.hand.progress(job, 0.4, seq=1)
    await gw.until(made["task_id"], "processing")
    gw.hand.finish(job)
    await gw.until(made["task_id"], "completed")
    async with stream(gw, path, **{"Last-Event-ID": last.id}) as events:
        told = await rest(events)
    assert told[-1].name == "completed"
    assert all(event.name != "snapshot" and stream_id(event.id) > stream_id(last.id) for event in told)
    over = await gw.get(path, headers={"Last-Event-ID": told[-1].id})
    assert (over.status_code, over.content) == (204, b"")


async def test_a_finished_task_tells_its_end_at_once(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    async with stream(gw, f"/task/{made['task_id']}/events") as events:
        assert [event.name for event in await rest(events)] == ["snapshot", "completed"]
    for nonsense in ("nonsense", "5-", "1_0-0", "+5", "9" * 19, "-1", "1-1-1"):
        async with stream(gw, f"/task/{made['task_id']}/events", **{"Last-Event-ID": nonsense}) as events:
            assert [event.name for event in await rest(events)] == ["snapshot", "completed"], nonsense
    answer = await gw.get(f"/task/{made['task_id']}/events", params={"last_event_id": "٣-٠"})
    assert answer.status_code == 200


async def test_once_ends_after_the_snapshot(gw: World) -> None:
    made = await gw.create()
    for path in (f"/task/{made['task_id']}/events?once=1", "/events?once=1"):
        async with stream(gw, path) as events:
            assert [event.name for event in await rest(events)] == ["snapshot"]


async def test_one_stream_of_all_tasks(gw: World) -> None:
    before = await gw.create(seed=1)
    bob = await gw.key_of("bob")
    async with stream(gw, "/events") as events:
        first = await anext(events)
        assert [task["task_id"] for task in first.data["tasks"]] == [before["task_id"]]
        await gw.client.post("/generate-image", json={"prompt": "x"}, headers=bob)
        after = await gw.create(seed=2)
        working = asyncio.create_task(gw.hand.work())
        seen: list[Told] = []
        async with asyncio.timeout(WITHIN_S):
            while sum(event.name == "completed" for event in seen) < 2:
                seen.append(await anext(events))
        working.cancel()
    assert {event.data["task_id"] for event in seen} == {before["task_id"], after["task_id"]}


async def test_a_user_may_not_hold_streams_without_bound(gw: World) -> None:
    async with AsyncExitStack() as streams:
        for _ in range(gw.gateway.settings.max_streams_per_user):
            await streams.enter_async_context(gw.gateway.hub.watch("ada"))
        answer = await gw.get("/events")
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")


async def test_streams_that_begin_at_once_are_bounded_too(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with world(shared_redis.url, tmp_path, MAX_STREAMS_PER_USER="5") as gw, AsyncExitStack() as streams:
        begun = await asyncio.gather(
            *(streams.enter_async_context(gw.client.stream("GET", "/events")) for _ in range(40))
        )
        assert sorted(answer.status_code for answer in begun) == [200] * 5 + [429] * 35


async def emit(gw: World, task_id: str, count: int) -> None:
    """Many events of ada's, as the ledger writes them."""
    key = gw.gateway.ledger.keys.user_events("ada")
    for number in range(count):
        data = json.dumps({"task_id": task_id, "number": number})
        event: dict[Any, Any] = {"task": task_id, "kind": "status", "data": data}
        await gw.gateway.redis.xadd(key, event, maxlen=USER_EVENTS, approximate=True)


async def test_a_reader_that_was_away_for_longer_than_events_are_kept_gets_a_snapshot(gw: World) -> None:
    """Else what ended meanwhile would look under way for ever."""
    made = await gw.create(seed=1)
    async with stream(gw, "/events") as events:
        last = await anext(events)
    await gw.delete(f"/task/{made['task_id']}")
    await gw.until(made["task_id"], "cancelled")
    await emit(gw, made["task_id"], USER_EVENTS + 150)
    async with stream(gw, "/events", **{"Last-Event-ID": last.id}) as events:
        first = await anext(events)
    assert first.name == "snapshot"
    assert [(task["task_id"], task["status"]) for task in first.data["tasks"]] == [(made["task_id"], "cancelled")]


async def test_a_reader_gets_all_that_is_kept(gw: World) -> None:
    """Redis keeps somewhat more events than it is asked to."""
    made = await gw.create(seed=1)
    await emit(gw, made["task_id"], USER_EVENTS + 60)
    oldest, *kept = [event.id for event in await gw.gateway.hub.replay(user="ada", after="0-0")]
    async with stream(gw, "/events", **{"Last-Event-ID": oldest}) as events:
        async with asyncio.timeout(WITHIN_S):
            seen = [(await anext(events)).id for _ in kept]
    assert seen == kept
    assert len(kept) >= USER_EVENTS


@pytest.mark.parametrize("path", ["/events", "/task/{task_id}/events"])
async def test_a_stream_ends_with_its_key(gw: World, path: str) -> None:
    """At the next thing to be told: a key is believed for a second."""
    made = await gw.create()
    headers = await gw.key_of("ada")
    async with stream(gw, path.format(task_id=made["task_id"]), **headers) as events:
        assert (await anext(events)).name == "snapshot"
        job = await gw.hand.take()
        await gw.revoke(headers)

        async def tell() -> None:
            for seq in itertools.count(1):
                gw.hand.progress(job, 0.5, seq=seq, step=seq % 2, total_steps=2)
                await gw.gateway.sweep.look.at(made["task_id"])

        telling = asyncio.create_task(tell())
        try:
            told = await rest(events)
        finally:
            telling.cancel()
    assert "completed" not in [event.name for event in told]
    assert (await gw.client.get("/events", headers=headers)).status_code == 401
    assert (await gw.status(made["task_id"]))["status"] == "processing"
