"""OpenAI's own client over the gateway, where a hand plays the worker: streams, and requests that are sent again."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from PIL import Image
from starlette.types import Message

from flux_engine.gateway.app import create_app
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger.ledger import ORPHANED
from flux_engine.gateway.tasks.look import ORPHANED_S
from tests.gateway.world import World, failure, picture, result_of
from tests.waiting import until

ASKED: Final[dict[str, Any]] = {"prompt": "a red sun", "size": "128x128", "extra_body": {"seed": 5}}


class HangsUp(httpx2.AsyncHTTPTransport):
    """A network that gives the first request up, as a time-out does, when `may_hang_up` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_hang_up = asyncio.Event()
        self.is_repeated = asyncio.Event()
        self._is_first = True

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self._is_first:
            self.is_repeated.set()
            return await super().handle_async_request(request)
        self._is_first = False
        sending = asyncio.create_task(super().handle_async_request(request))
        await self.may_hang_up.wait()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        raise httpx2.ReadTimeout("no answer in time", request=request)


@pytest.fixture
async def client(gw: World) -> AsyncIterator[AsyncOpenAI]:
    key = gw.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=key, max_retries=0, timeout=300) as made:
        yield made


def preview(shade: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(buffer, "WEBP")
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


async def test_a_stream_with_three_partial_pictures(gw: World, client: AsyncOpenAI) -> None:
    stream = await client.images.generate(**ASKED, stream=True, partial_images=3)
    job = await gw.hand.take()
    assert job.payload["input"]["preview"] is True  # type: ignore[index]
    events = []
    for number in range(3):
        update: dict[str, Any] = {"step": number + 1, "total_steps": 4, "preview": preview(50 * number)}
        gw.hand.progress(job, 0.2 * (number + 1), seq=number + 1, **update)
        events.append(await anext(stream))
    gw.hand.finish(job)
    events += [event async for event in stream]
    assert [event.type for event in events] == [*["image_generation.partial_image"] * 3, "image_generation.completed"]
    sent = [base64.b64decode(event.b64_json) for event in events]
    assert [f"data:image/webp;base64,{base64.b64encode(data).decode()}" for data in sent[:3]] == [
        preview(50 * number) for number in range(3)
    ]
    assert sent[3] == picture(5)


async def test_an_edit_with_two_pictures_reaches_the_worker_in_order(gw: World, client: AsyncOpenAI) -> None:
    files = [picture(1), picture(2)]
    asked: dict[str, Any] = {**ASKED, "model": "FLUX.2-klein-4B", "response_format": "b64_json"}
    asking = asyncio.create_task(client.images.edit(image=files, **asked))
    job = await gw.hand.take()
    sent: Any = job.payload["input"]
    assert [base64.b64decode(source.rpartition(",")[2]) for source in sent["images"]] == files
    assert "image" not in sent
    gw.hand.finish(job)
    answer = await asking
    assert answer.data is not None
    assert base64.b64decode(answer.data[0].b64_json or "") == picture(5)
    with pytest.raises(openai.BadRequestError, match="takes up to 4"):
        await client.images.edit(image=files * 3, **asked)


async def test_what_the_client_repeats_after_a_time_out_is_one_task_and_one_charge(gw: World) -> None:
    key = gw.headers["Authorization"].removeprefix("Bearer ")
    (_, before) = (await gw.get("/usage")).json()["work"]  # of the day: a minute may be over
    network = HangsUp()
    http = httpx2.AsyncClient(transport=network)
    async with AsyncOpenAI(base_url=f"{gw.url}/v1", api_key=key, http_client=http) as client:
        asking = asyncio.create_task(client.images.generate(**ASKED, response_format="b64_json"))
        job = await gw.hand.take()
        network.may_hang_up.set()
        await network.is_repeated.wait()
        gw.hand.finish(job)
        answer = await asking
    assert answer.data is not None
    assert base64.b64decode(answer.data[0].b64_json or "") == picture(5)
    listed = (await gw.get("/tasks")).json()["tasks"]
    assert [task["status"] for task in listed] == ["completed"]
    assert len(gw.platform.endpoint.queue.jobs) == 1
    await gw.until_settled(listed[0]["task_id"])
    (_, after) = (await gw.get("/usage")).json()["work"]
    assert after["used"] - before["used"] == pytest.approx(listed[0]["work_used"], abs=0.001)


@pytest.mark.parametrize("way", ["repeat", "repeat of a stream", "events", "result"])
async def test_a_task_that_somebody_waits_for_is_no_orphan(way: str, gw: World) -> None:
    """Another of its clients has hung up, which the gateway sees late."""
    asked = {"prompt": "a red sun", "size": "128x128", "stream": way == "repeat of a stream"}
    repeat: dict[str, Any] = {"json": asked, "headers": {"Idempotency-Key": "one"}}
    first = asyncio.create_task(_held(gw, "POST", "/v1/images/generations", **repeat))
    await gw.hand.take()
    (task_id,) = [task["task_id"] for task in (await gw.get("/tasks")).json()["tasks"]]
    await _ended(first)
    await until(lambda: _is(_is_orphan(gw, task_id), True))
    paths = {"events": f"/task/{task_id}/events", "result": f"/task/{task_id}/result?wait=60"}
    waits = _held(gw, "GET", paths[way]) if way in paths else _held(gw, "POST", "/v1/images/generations", **repeat)
    second = asyncio.create_task(waits)
    await until(lambda: gw.gateway.hub.count("ada") == 1)
    await until(lambda: _is(_is_orphan(gw, task_id), False))
    task = await gw.gateway.ledger.get(task_id)
    assert task is not None
    await gw.gateway.ledger.orphan(task, until=time.time() + ORPHANED_S)
    await until(lambda: _is(_is_orphan(gw, task_id), False))
    await _ended(second)


async def test_a_stream_that_has_just_begun_makes_its_task_no_orphan(
    gw: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other client's end comes while the first snapshot is read."""
    made = await gw.create()
    await gw.hand.take()
    ledger, snapshot = gw.gateway.ledger, gw.gateway.hub.snapshot
    async with gw.gateway.hub.watch("ada", made["task_id"]) as watcher:

        async def interrupted(task_id: str) -> tuple[str, Task | None]:
            seen = await snapshot(task_id)
            assert seen[1] is not None
            watcher.take()
            await ledger.orphan(seen[1], until=time.time() + ORPHANED_S)
            while not any(event.kind == ORPHANED for event in watcher.take()):
                await watcher.wait(60)
            return seen

        monkeypatch.setattr(gw.gateway.hub, "snapshot", interrupted)
        async with gw.client.stream("GET", f"/task/{made['task_id']}/events") as answer:
            told = answer.aiter_lines()
            while not (await anext(told)).startswith("event: snapshot"):
                pass
            await until(lambda: _is(_is_orphan(gw, made["task_id"]), False))


async def test_a_client_that_hangs_up_while_a_picture_is_sent_leaves_an_orphan(gw: World) -> None:
    """It took none of the bytes any more, so that the gateway could not send them all."""
    body = json.dumps({"prompt": "a red sun", "size": "128x128", "stream": True, "partial_images": 1}).encode()
    asked = [{"type": "http.request", "body": body}]
    is_sending, hangs_up = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        if asked:
            return asked.pop()
        await hangs_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            is_sending.set()
            await asyncio.Event().wait()

    headers = [(b"authorization", gw.headers["Authorization"].encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/images/generations", "headers": headers}
    answering = asyncio.create_task(create_app(gw.gateway)({**scope, "query_string": b""}, receive, send))
    job = await gw.hand.take()
    gw.hand.progress(job, 0.5, seq=1, step=1, total_steps=1, preview=preview(50))
    await is_sending.wait()
    hangs_up.set()
    await answering
    sent: Any = job.payload["input"]
    assert await _is_orphan(gw, sent["gateway"]["task_id"])


async def test_a_task_that_nobody_waits_for_ends_and_is_cancelled_in_time(gw: World) -> None:
    """Whoever hangs up delays no end; and nobody's task runs on for ever."""
    finishes, runs = await gw.create(seed=1), await gw.create(seed=2)
    jobs = [await gw.hand.take() for _ in range(2)]
    for made in (finishes, runs):
        task = await gw.gateway.ledger.get(made["task_id"])
        assert task is not None
        await gw.gateway.ledger.orphan(task, until=time.time() + 3600)
    gw.hand.finish(next(job for job in jobs if job.payload["input"]["seed"] == 1))  # type: ignore[index]

    async def status_of(made: dict[str, Any]) -> str:  # without a request, which would be somebody who waits
        task = await gw.gateway.ledger.get(made["task_id"])
        return task.status if task is not None else ""

    await until(lambda: _is(status_of(finishes), "completed"))
    key = gw.gateway.ledger.keys.task(runs["task_id"])
    await gw.gateway.redis.hset(key, "orphaned_at", str(time.time() - ORPHANED_S - 1))
    await until(lambda: _is(status_of(runs), "cancelled"))


async def test_somebody_who_comes_back_at_the_last_moment_keeps_the_task(gw: World) -> None:
    """The look that cancels it read it before."""
    made, ledger = await gw.create(), gw.gateway.ledger
    await gw.hand.take()
    task = await ledger.get(made["task_id"])
    assert task is not None
    await ledger.orphan(task, until=time.time() + ORPHANED_S)
    read = await ledger.get(made["task_id"])
    assert read is not None
    await ledger.adopt(read)
    kept = await gw.gateway.cancellation.cancel(read, as_orphan=True)
    assert (kept.is_final, kept.cancelling) == (False, False)


async def _is(asked: Awaitable[object], expected: object) -> bool:
    return await asked == expected


async def _is_orphan(gw: World, task_id: str) -> bool:
    task = await gw.gateway.ledger.get(task_id)
    assert task is not None
    return task.orphaned_at is not None


async def _ended(asking: asyncio.Task[None]) -> None:
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def _held(gw: World, method: str, path: str, **more: Any) -> None:
    async with gw.client.stream(method, path, **more) as answer:
        async for _ in answer.aiter_bytes():
            pass


async def test_a_stream_that_fails_says_why(gw: World, client: AsyncOpenAI) -> None:
    stream = await client.images.generate(**ASKED, stream=True)
    gw.hand.finish(await gw.hand.take(), error=failure("content_filtered", "withheld"))
    with pytest.raises(openai.APIError, match="withheld"):
        _ = [event async for event in stream]


async def test_an_error_in_a_stream_is_an_event_of_that_name(gw: World) -> None:
    asking = asyncio.create_task(gw.post("/v1/images/generations", json={"prompt": "a red sun", "stream": True}))
    gw.hand.finish(await gw.hand.take(), error=failure("content_filtered", "withheld"))
    (event, data) = (await asking).text.strip().split("\n")
    assert event == "event: error"
    said = json.loads(data.removeprefix("data: "))
    assert (said["type"], said["error"]["code"]) == ("error", "content_filtered")


async def test_a_form_whatever_the_case_of_its_type(gw: World) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red sun\r\n--b--\r\n'
    answer = await gw.post(
        "/v1/images/edits", content=body, headers={"Content-Type": "Multipart/Form-Data; boundary=b"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


async def test_a_users_name_that_utf8_cannot_hold(gw: World) -> None:
    body = json.dumps({"prompt": "a red sun", "user": "ada\ud800", "response_format": "b64_json"})
    headers = {"Content-Type": "application/json"}
    asking = asyncio.create_task(gw.post("/v1/images/generations", content=body, headers=headers))
    gw.hand.finish(await gw.hand.take())
    answer = await asking
    assert (answer.status_code, answer.json()["safety_identifier"]) == (200, "ada")


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        ({"size": "5000x10"}, openai.BadRequestError, "size"),
        ({"n": 9}, openai.BadRequestError, "n"),
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
        ({"extra_body": {"image": "no picture"}}, openai.BadRequestError, "image"),
    ],
)
async def test_errors_are_the_clients_own_and_reach_no_queue(
    gw: World, client: AsyncOpenAI, asked: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as raised:
        await client.images.generate(**{**ASKED, **asked})
    assert raised.value.param == param
    assert gw.platform.endpoint.queue.jobs == ()


async def test_new_fields_are_taken_with_a_warning(gw: World, client: AsyncOpenAI) -> None:
    asking = asyncio.create_task(
        client.images.generate(**{**ASKED, "extra_body": {"seed": 5, "field_of_next_month": True}})
    )
    job = await gw.hand.take()
    gw.hand.finish(job, result_of(job))
    answer = await asking
    assert answer.model_extra is not None
    assert any("field_of_next_month" in warning for warning in answer.model_extra["warnings"])


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_task_that_redis_has_lost_is_waited_for_no_longer(is_streamed: bool, gw: World) -> None:
    """A Redis without persistence was restarted: its client asks again, and gets another task."""
    body = {"prompt": "a red sun", "size": "128x128", "stream": is_streamed}
    asking = asyncio.create_task(gw.post("/v1/images/generations", json=body))
    sent: Any = (await gw.hand.take()).payload["input"]
    ledger = gw.gateway.ledger
    await gw.gateway.redis.delete(ledger.keys.task(sent["gateway"]["task_id"]))
    answer = await asking
    assert "send the request again" in answer.text
    assert is_streamed or (answer.status_code, answer.headers["x-should-retry"]) == (503, "true")
