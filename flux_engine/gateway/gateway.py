"""Gateway: all rooms put together, and what runs in the background while it is open.

async with open_gateway(settings) as gateway:       # assembly.py
    ...
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from opentelemetry.sdk.trace import TracerProvider
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flux_engine.cache.notices import Notices
from flux_engine.cache.redis_link import CacheAway
from flux_engine.gateway.asking import Asking
from flux_engine.gateway.capacity import Capacity
from flux_engine.gateway.limits.line import FairLine
from flux_engine.gateway.limits.manager import LimitsManager
from flux_engine.gateway.offer import Offers
from flux_engine.gateway.security.manager import SecurityManager
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.cancellation import Cancellation
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.events import EventHub
from flux_engine.gateway.tasks.intake import Intake
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.results import Results
from flux_engine.gateway.tasks.submit import Dispatcher
from flux_engine.gateway.tasks.sweep import Sweep
from flux_engine.gateway.watching.metrics import GatewayMetrics
from flux_engine.gateway.webhooks.manager import WebhookManager
from flux_engine.gateway.webhooks.target import Target
from flux_engine.net.post import Poster
from flux_engine.queues.job_queue import JobQueue

RECONNECT_S: Final = 0.5
LISTEN_S: Final = 5.0
CANCEL_AGAIN_S: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What the routes work with."""

    settings: GatewaySettings
    redis: Redis
    queue: JobQueue
    ledger: Ledger
    hub: EventHub
    results: Results
    offers: Offers
    asking: Asking
    capacity: Capacity
    intake: Intake
    sweep: Sweep
    dispatcher: Dispatcher
    endings: Endings
    cancellation: Cancellation
    security: SecurityManager
    limits: LimitsManager
    line: FairLine
    webhooks: WebhookManager
    metrics: GatewayMetrics
    tracing: TracerProvider
    poster: Poster

    def webhook_target(self, given: object) -> dict[str, Any]:
        """A request's `webhook`, checked. Raises Refused."""
        return Target.parse(given, self.poster).to_json()

    async def wait_until_final(self, task: Task, *, seconds: float) -> Task:
        """`task` once it has ended, or as it stands after `seconds` or when the gateway stops. It is no orphan while
        this waits, and a Redis that does not answer is waited for too."""
        deadline = time.monotonic() + seconds
        async with self.hub.watch(task.user, task.id) as watcher:
            while True:
                known = await self.ledger.awaited(task)
                left_s = deadline - time.monotonic()
                if known is None or known.is_final or left_s <= 0 or watcher.is_closing:
                    return known or task
                await watcher.wait(min(left_s, LISTEN_S))
                watcher.take()


@asynccontextmanager
async def running(gateway: Gateway, notices: Notices) -> AsyncIterator[None]:
    """The gateway's background work, until the body ends."""
    works: dict[str, Callable[[], Awaitable[None]]] = {
        "events": gateway.hub.run,
        "sweep": gateway.sweep.run,
        "dispatcher": gateway.dispatcher.run,
        "webhooks": gateway.webhooks.run,
        "endings": gateway.endings.run,
        "notices": partial(_listen, gateway, notices),
    }
    jobs = [asyncio.create_task(_kept_up(name, work), name=name) for name, work in works.items()]
    try:
        yield
    finally:
        gateway.hub.close()
        await end(jobs)


async def _kept_up(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """`work`, begun again where something unforeseen ends it: without it tasks would stand still behind probes that go
    on saying that all is well."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work broke off and begins again", extra={"code": "internal", "detail": name})
        await asyncio.sleep(RECONNECT_S)


async def end(jobs: Iterable[asyncio.Task[None]]) -> None:
    """Cancel `jobs` until each has ended.

    redis-py sends through `asyncio.wait_for`, which on Python 3.11 drops a cancellation that arrives together with its
    result: a job that was cancelled once may go on for ever.
    """
    running = set(jobs)
    while running:
        for job in running:
            job.cancel()
        ended, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
        await asyncio.gather(*ended, return_exceptions=True)


async def _listen(gateway: Gateway, notices: Notices) -> None:
    """Pass on what workers say. Whatever was missed before, the sweep sees."""
    while True:
        try:
            async with gateway.redis.pubsub() as messages:
                await messages.subscribe(notices.channel)
                while True:
                    message = await messages.get_message(timeout=LISTEN_S)
                    if message is None:
                        continue
                    if message["type"] == "subscribe":  # again, too, after redis-py has reconnected by itself
                        await gateway.sweep.catch_up()
                    elif message["type"] == "message":
                        await _hear(gateway, message["data"])
        except (RedisError, CacheAway, OSError) as error:
            log.debug("notices interrupted", extra={"detail": type(error).__name__})
            await asyncio.sleep(RECONNECT_S)


async def _hear(gateway: Gateway, text: str) -> None:
    try:
        notice = json.loads(text)
        task_id, update = notice["task"], notice.get("progress")
    except (ValueError, KeyError, TypeError):
        return
    if isinstance(task_id, str) and (update is None or isinstance(update, dict)):
        await gateway.sweep.hear(task_id, update)
