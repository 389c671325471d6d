"""Webhooks: what changed, told to whoever asked.

    webhooks = WebhookManager(log, poster, secret=..., view=...)
    await webhooks.task_changed(task)            at once: the delivery is written down
    running = asyncio.create_task(webhooks.run())    sends what is due, on every replica

A receiver that is slow or down delays nobody: a user has a few attempts under way at most, everybody together a bounded
number, and nothing of a request waits for one. Receivers may see a delivery twice and know it by its id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from flux_engine.cache.redis_link import CacheAway
from flux_engine.gateway.task import Task
from flux_engine.gateway.webhooks.delivery import Attempt, Delivery, Place, after, body_of, delivery_id
from flux_engine.gateway.webhooks.delivery_log import DeliveryLog
from flux_engine.gateway.webhooks.signature import secret_of, signed_headers
from flux_engine.gateway.webhooks.target import Target
from flux_engine.net.post import Poster

TIMEOUT_S: Final = 15.0
MAX_AT_ONCE: Final = 64
MAX_OF_USER: Final = 4  # claimed at a time, and none more until fewer are under way
LOOK_S: Final = 1.0  # how often a replica looks for what others have made due
MAX_UNWRITTEN: Final = 1_000

log = logging.getLogger(__name__)


class WebhookManager:
    """`Webhooks` (seams.py). For one event loop."""

    def __init__(
        self,
        deliveries: DeliveryLog,
        poster: Poster,
        *,
        secret: bytes,
        view: Callable[[Task], Mapping[str, Any]] = Task.public,
        timeout_s: float = TIMEOUT_S,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.time,
        on_attempt: Callable[[Attempt], None] = lambda attempt: None,
    ) -> None:
        """`secret` is the gateway's; `view` is what a delivery says of a task; `on_attempt` is told of every one."""
        self._deliveries = deliveries
        self._poster = poster
        self._secret = secret
        self._view = view
        self._timeout_s = timeout_s
        self._look_s = look_s
        self._clock = clock
        self._on_attempt = on_attempt
        self._news = asyncio.Event()
        self._under_way: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        self._unwritten: dict[str, Delivery] = {}

    async def task_changed(self, task: Task) -> None:
        """Write down a delivery, where the task's client has asked for this status. Never raises."""
        if task.webhook is None:
            return
        target = Target.of(task.webhook)
        if not target.is_told_of(task.status):
            return
        event, now = f"task.{task.status}", self._clock()
        made = Delivery(
            id=delivery_id(task.id, task.status),
            user=task.user,
            task_id=task.id,
            event=event,
            url=target.url,
            body=body_of(event, now, self._view(task)),
            created_at=now,
        )
        if len(self._unwritten) >= MAX_UNWRITTEN:
            log.warning("a webhook is dropped: Redis is away and too many wait", extra={"job_id": task.id})
            return
        self._unwritten.setdefault(made.id, made)
        await self._write()

    async def redeliver(self, user: str, delivery_id: str) -> bool:
        """Send one again now, with all its retries; False where `user` has no such delivery. Raises CacheAway."""
        found = await self._deliveries.again(user, delivery_id)
        self._news.set()
        return found

    async def deliveries(self, user: str, *, limit: int = 50, after: Place | None = None) -> list[Delivery]:
        """The user's newest deliveries. Raises CacheAway."""
        return await self._deliveries.of_user(user, limit=limit, after=after)

    def secret_of(self, user: str) -> str:
        """What this user's receivers verify signatures with."""
        return secret_of(user, self._secret)

    async def run(self) -> None:
        """Send what is due until cancelled. An attempt that is cut off is made again when its lease ends."""
        try:
            while True:
                self._news.clear()
                try:
                    await self._write()
                    await self._send_due()
                except CacheAway:
                    pass  # the link has said so
                try:
                    async with asyncio.timeout(self._look_s):  # not wait_for, which can lose a cancellation
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            for sending in self._sending:
                sending.cancel()
            if self._sending:
                await asyncio.wait(self._sending)

    async def _write(self) -> None:
        """Write down what is not yet: while Redis is away it stays in memory."""
        for made in list(self._unwritten.values()):
            try:
                if not await self._deliveries.add(made):
                    log.debug("a webhook is known or one too many", extra={"job_id": made.task_id})
            except CacheAway:
                return
            self._unwritten.pop(made.id, None)
            self._news.set()

    async def _send_due(self) -> None:
        room = MAX_AT_ONCE - len(self._sending)
        if room <= 0:
            return
        busy = [user for user, count in self._under_way.items() if count >= MAX_OF_USER]
        for delivery in await self._deliveries.claim(most=room, most_of_user=MAX_OF_USER, skip=busy):
            self._under_way[delivery.user] += 1
            sending = asyncio.create_task(self._send(delivery))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def _send(self, delivery: Delivery) -> None:
        begun, clock = self._clock(), time.monotonic()
        try:
            headers = signed_headers(
                self.secret_of(delivery.user), message_id=delivery.id, timestamp=int(begun), body=delivery.body
            )
            answer = await self._poster.post(
                delivery.url,
                body=delivery.body,
                headers={"Content-Type": "application/json", **headers},
                total_timeout_s=self._timeout_s,
            )
            attempt = Attempt(begun, answer.status, answer.reason, round((time.monotonic() - clock) * 1000))
            state, retry_s = after(answer, delivery.tries + 1)
            self._on_attempt(attempt)
            await self._deliveries.done(delivery, attempt, state=state, retry_s=retry_s)
            facts = {"job_id": delivery.task_id, "ms": attempt.ms, "code": str(answer.status or answer.reason)}
            log.info("webhook sent" if state == "delivered" else "webhook failed", extra=facts)
        except CacheAway:
            pass  # it is sent once more when the lease ends: receivers know the id
        finally:
            self._under_way -= Counter((delivery.user,))
            self._news.set()
