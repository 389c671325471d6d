"""Webhooks against real receivers: signed, retried on schedule, logged, sent again, and in nobody's way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.problems import Refused
from flux_engine.gateway.task import Task
from flux_engine.gateway.webhooks.delivery import RETRY_AFTER_S, Attempt, Delivery, after
from flux_engine.gateway.webhooks.delivery_log import LEASE_S, MAX_PENDING, DeliveryLog
from flux_engine.gateway.webhooks.manager import WebhookManager
from flux_engine.gateway.webhooks.target import Target
from flux_engine.net.post import Answer, Poster
from tests.servers import RedisProcess
from tests.waiting import PATIENCE_S, until
from tests.web_server import loopback, server

SECRET = b"the gateway's own secret, 32 bytes and more"


class Clock:
    """Time that a test moves; it begins now, so that signatures are fresh."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Receiver:
    """Answers with what it is told to, and keeps what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.came: asyncio.Queue[tuple[bytes, dict[str, str]]] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.came.put_nowait((await request.read(), headers))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


def task_of(port: int, *, name: str = "t1", user: str = "ada", status: str = "completed", **webhook: Any) -> Task:
    target = {"url": f"http://hook.example:{port}/hook"} | webhook
    made = Task(id=name, user=user, kind="image", status="completed", created_at=1_764_000_000.0, webhook=target)
    return replace(made, status=status)  # type: ignore[arg-type]


Make = Callable[[], WebhookManager]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deliveries(link: RedisLink, root: str, clock: Clock) -> DeliveryLog:
    return DeliveryLog(link, root=root, clock=clock)


@pytest.fixture
def make(deliveries: DeliveryLog, clock: Clock) -> Make:
    """A replica's webhooks."""

    def made() -> WebhookManager:
        poster = Poster(allow_private=True, resolve=loopback)
        return WebhookManager(deliveries, poster, secret=SECRET, clock=clock, look_s=0.01, timeout_s=PATIENCE_S)

    return made


@asynccontextmanager
async def running(*managers: WebhookManager) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(manager.run()) for manager in managers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def logged(manager: WebhookManager, user: str = "ada") -> list[dict[str, Any]]:
    return [delivery.public() for delivery in await manager.deliveries(user)]


async def test_the_standard_library_verifies_what_arrives(make: Make) -> None:
    receiver, manager = Receiver(), make()
    async with server(receiver.answer) as port, running(manager):
        await manager.task_changed(task_of(port))
        body, headers = await receiver.came.get()
    said = Webhook(manager.secret_of("ada")).verify(body, headers)
    assert (said["type"], said["data"]["task_id"], said["data"]["status"]) == ("task.completed", "t1", "completed")
    assert headers["content-type"] == "application/json"
    for secret, changed in ((manager.secret_of("bob"), body), (manager.secret_of("ada"), body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(changed, headers)


async def test_only_what_was_asked_for_and_once(make: Make) -> None:
    """Two replicas see the same change, one of them twice."""
    receiver, one, other = Receiver(), make(), make()
    async with server(receiver.answer) as port, running(one, other):
        for manager in (one, other, one):
            for status in ("processing", "completed"):
                await manager.task_changed(task_of(port, status=status, events=["status", "completed"]))
        await manager.task_changed(task_of(port, name="t2", status="processing"))
        await manager.task_changed(replace(task_of(port, name="t3"), webhook=None))
        events = {json.loads((await receiver.came.get())[0])["type"] for _ in range(2)}
        await until(lambda: _all(one, "delivered"))
    assert events == {"task.processing", "task.completed"}
    assert receiver.came.empty()
    assert len(await logged(one)) == 2


async def _all(manager: WebhookManager, state: str) -> bool:
    return all(entry["state"] == state for entry in await logged(manager))


async def test_the_schedule(make: Make, clock: Clock) -> None:
    receiver, manager = Receiver(*[500] * 7, 204), make()
    async with server(receiver.answer) as port, running(manager):
        await manager.task_changed(task_of(port))
        ids, bodies = set(), set()
        for attempt, pause in enumerate([*RETRY_AFTER_S, 0], start=1):
            body, headers = await receiver.came.get()
            ids.add(headers["webhook-id"])
            bodies.add(body)

            async def is_noted(attempt: int = attempt) -> bool:
                return len((await logged(manager))[0]["attempts"]) == attempt

            await until(is_noted)
            clock.now += pause - 1 if pause else 0
            await asyncio.sleep(0.05)  # it looks a few times and finds nothing due
            assert receiver.came.empty()
            clock.now += 1
        (entry,) = await logged(manager)
    assert (len(ids), len(bodies)) == (1, 1)
    assert entry["state"] == "delivered"
    assert [attempt["status"] for attempt in entry["attempts"]] == [500] * 7 + [204]
    assert "next_attempt_at" not in entry


@pytest.mark.parametrize(
    ("answer", "tries", "expected"),
    [
        (Answer(200), 1, ("delivered", 0)),
        (Answer(299), 8, ("delivered", 0)),
        (Answer(301), 1, ("pending", 5)),
        (Answer(410), 1, ("failed", 0)),
        (Answer(404), 2, ("pending", 300)),
        (Answer(429), 3, ("pending", 1_800)),
        (Answer(503), 4, ("pending", 7_200)),
        (Answer(None, "no answer within 15 s"), 5, ("pending", 18_000)),
        (Answer(500), 6, ("pending", 36_000)),
        (Answer(500), 7, ("pending", 50_400)),
        (Answer(500), 8, ("failed", 0)),
    ],
)
def test_what_becomes_of_a_delivery(answer: Answer, tries: int, expected: tuple[str, int]) -> None:
    assert after(answer, tries) == expected


async def test_gone_ends_it_and_its_user_may_ask_again(make: Make) -> None:
    receiver, manager = Receiver(410), make()
    async with server(receiver.answer) as port, running(manager):
        await manager.task_changed(task_of(port))
        first = await receiver.came.get()
        await until(lambda: _all(manager, "failed"))
        (entry,) = await logged(manager)
        assert not await manager.redeliver("eve", entry["id"])
        assert not await manager.redeliver("ada", "msg_unknown")
        assert await manager.redeliver("ada", entry["id"])
        second = await receiver.came.get()
        await until(lambda: _all(manager, "delivered"))
    assert (first[0], first[1]["webhook-id"]) == (second[0], second[1]["webhook-id"])
    assert [a["status"] for a in (await logged(manager))[0]["attempts"]] == [410, 200]
    assert await logged(manager, "eve") == []


async def test_what_is_asked_for_while_it_is_sent_is_sent_again(make: Make, deliveries: DeliveryLog) -> None:
    """The receiver hung, was mended, and its user does not wait for the attempt under way to fail."""
    manager = make()
    await manager.task_changed(task_of(9))
    (sent,) = await deliveries.claim(most=9, most_of_user=9)
    assert await manager.redeliver("ada", sent.id)
    await deliveries.done(sent, Attempt(0.0, None, "no answer within 15 s", 15_000), state="pending", retry_s=300)
    (again,) = await deliveries.claim(most=9, most_of_user=9)
    assert (again.id, again.tries, len(again.attempts)) == (sent.id, 0, 1)
    await deliveries.done(again, Attempt(0.0, 200, "", 3), state="delivered", retry_s=0)
    assert [(entry["state"], len(entry["attempts"])) for entry in await logged(manager)] == [("delivered", 2)]


async def test_a_failing_hook_delays_nobody(make: Make) -> None:
    """Fifty hooks of one user hang; another's arrives, and telling of a change waits for none of them."""
    hanging, receiver, manager = asyncio.Event(), Receiver(), make()

    async def hang(_request: web.Request) -> web.Response:
        await hanging.wait()
        return web.Response()

    async with server(hang) as slow, server(receiver.answer) as quick, running(manager):
        for number in range(50):
            await manager.task_changed(task_of(slow, name=f"slow{number}", user="eve"))
        await manager.task_changed(task_of(quick))
        await receiver.came.get()
        await until(lambda: _all(manager, "delivered"))
        assert {entry["state"] for entry in await logged(manager, "eve")} == {"pending"}
        hanging.set()
        await until(lambda: _delivered(manager, "eve", 50))


async def _delivered(manager: WebhookManager, user: str, count: int) -> bool:
    return [entry["state"] for entry in await logged(manager, user)] == ["delivered"] * count


async def test_what_a_dead_replica_was_sending_is_sent_by_another(
    make: Make, deliveries: DeliveryLog, clock: Clock
) -> None:
    receiver, manager = Receiver(), make()
    async with server(receiver.answer) as port:
        await manager.task_changed(task_of(port))
        assert len(await deliveries.claim(most=9, most_of_user=9)) == 1  # and its claimer dies
        async with running(manager):
            clock.now += LEASE_S
            await receiver.came.get()
            await until(lambda: _all(manager, "delivered"))


async def test_while_redis_is_away_changes_are_kept(redis: RedisProcess, root: str) -> None:
    link, receiver = RedisLink(RemoteServer(redis.url), call_timeout_s=60, retry_after_s=0), Receiver()
    poster = Poster(allow_private=True, resolve=loopback)
    manager = WebhookManager(DeliveryLog(link, root=root), poster, secret=SECRET, look_s=0.01, timeout_s=PATIENCE_S)
    redis.kill()
    async with server(receiver.answer) as port, running(manager):
        await manager.task_changed(task_of(port))
        redis.start()
        await receiver.came.get()
        await until(lambda: _all(manager, "delivered"))
    await link.close()


async def test_deliveries_of_one_moment_are_on_one_page_or_the_next(deliveries: DeliveryLog, clock: Clock) -> None:
    ids = [f"msg_{number}" for number in range(7)]
    for name in ids:
        facts = {"task_id": "t", "event": "task.completed", "url": "http://hook.example/", "body": b"{}"}
        await deliveries.add(Delivery(id=name, user="ada", created_at=clock.now, **facts))  # type: ignore[arg-type]
    seen: list[Delivery] = []
    while page := await deliveries.of_user("ada", limit=3, after=seen[-1].place if seen else None):
        seen += page
    assert sorted(delivery.id for delivery in seen) == ids


async def test_too_many_waiting_are_logged_as_failed(make: Make, deliveries: DeliveryLog, clock: Clock) -> None:
    def made(number: int, user: str) -> Delivery:
        return Delivery(
            id=f"{user}{number}",
            user=user,
            task_id="t",
            event="task.completed",
            url="http://hook.example/",
            body=b"{}",
            created_at=clock.now + number / 1000,
        )

    added = [await deliveries.add(made(number, "eve")) for number in range(MAX_PENDING + 1)]
    assert (sum(added), added[-1]) == (MAX_PENDING, False)
    assert (await make().deliveries("eve", limit=1))[0].state == "failed"
    assert await deliveries.add(made(0, "ada"))
    page = await deliveries.of_user("eve", limit=10)
    following = await deliveries.of_user("eve", limit=10, after=page[-1].place)
    assert following[0].id == f"eve{MAX_PENDING - 10}"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("http://hook.example/", "webhook.url"),
        ([], "webhook"),
        ({}, "webhook.url"),
        ({"url": 7}, "webhook.url"),
        ({"url": ""}, "webhook.url"),
        ({"url": "http://hook.example/"}, "webhook.url"),
        ({"url": "https://127.0.0.1/"}, "webhook.url"),
        ({"url": "https://[::1]/"}, "webhook.url"),
        ({"url": "https://user:word@hook.example/"}, "webhook.url"),
        ({"url": "gopher://hook.example/"}, "webhook.url"),
        ({"url": "https://hook.example/" + "a" * 10_000}, "webhook.url"),
        ({"url": "https://hook.example/\udc80"}, "webhook.url"),
        ({"url": "https://hook.example/#\udc80"}, "webhook.url"),
        ({"url": "https://hook.example/", "events": []}, "webhook.events"),
        ({"url": "https://hook.example/", "events": "completed"}, "webhook.events"),
        ({"url": "https://hook.example/", "events": ["done"]}, "webhook.events"),
        ({"url": "https://hook.example/", "events": [["completed"]]}, "webhook.events"),
        ({"url": "https://hook.example/", "secret": "mine"}, "webhook"),
    ],
)
def test_targets_that_are_refused(given: object, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        Target.parse(given, Poster())
    assert (refusal.value.field, refusal.value.body()["status"]) == (field, 422)


def test_a_target() -> None:
    given = {"url": "https://hook.example/a?b=c", "events": ["failed", "completed", "failed"]}
    target = Target.parse(given, Poster())
    assert Target.of(target.to_json()) == target
    assert target.events == ("failed", "completed")
    assert Target.parse("https://hook.example/", Poster()).events == ("completed", "failed", "cancelled")


async def test_line_breaks_reach_no_header(make: Make) -> None:
    """A task's id and user stand in no header as they are, and a URL with a line break is escaped or refused."""
    receiver, manager = Receiver(), make()
    async with server(receiver.answer) as port, running(manager):
        await manager.task_changed(task_of(port, name="t\r\nwebhook-signature: v1,AAAA", user="a\r\nX: y"))
        _, headers = await receiver.came.get()
    assert headers["webhook-id"].isalnum() or headers["webhook-id"].startswith("msg_")
    assert "x" not in headers
