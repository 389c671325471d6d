"""Events of tasks, to everyone who watches on this replica.

    async with hub.watch(user, task_id) as watcher:
        ...                                  # read the ledger now: nothing is missed from here on
        while await watcher.wait(15):
            for event in watcher.take(): ...

One connection listens to the ledger's channel for all watchers. A watcher that reads slowly gets only the newest event
of each kind and task, with what the status events before it said. After the connection was lost each watcher is asked
to read the ledger again (`must_resync`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from flux_engine.gateway.task import FINAL, Task
from flux_engine.gateway.tasks.ledger.keys import quoted_user
from flux_engine.gateway.tasks.ledger.ledger import NO_ID, Ledger
from flux_engine.gateway.tasks.ledger.lua import USER_EVENTS

Kind = Literal["status", "preview", "completed", "failed", "cancelled"]
RECONNECT_S: Final = 0.2
LISTEN_S: Final = 5.0
ALL: Final = ""
STREAM_ID: Final = re.compile(r"[0-9]{1,18}(-[0-9]{1,18})?")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """`data` is JSON text."""

    id: str
    task_id: str
    kind: str
    data: str

    @property
    def is_final(self) -> bool:
        return self.kind in FINAL

    def after(self, earlier: Event) -> Event:
        """This event for whoever did not see an `earlier` one of its kind: a status says only what has changed."""
        if self.kind != "status":
            return self
        return replace(self, data=json.dumps(json.loads(earlier.data) | json.loads(self.data)))


class Watcher:
    """The events of one task, or of all of a user's."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[str, str], Event] = OrderedDict()
        self._wake = asyncio.Event()
        self.must_resync = False
        self.is_closing = False

    async def wait(self, timeout_s: float) -> bool:
        """Until there is something to take, a resync, or the end; False after `timeout_s`."""
        if self._wake.is_set():
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        return self._wake.is_set()

    def take(self) -> list[Event]:
        """What has come since the last call, oldest first."""
        if not self.is_closing:
            self._wake.clear()
        events, self._waiting = list(self._waiting.values()), OrderedDict()
        return sorted(events, key=lambda event: stream_id(event.id))

    def put(self, event: Event) -> None:
        earlier = self._waiting.pop((event.task_id, event.kind), None)
        self._waiting[event.task_id, event.kind] = event if earlier is None else event.after(earlier)
        self._wake.set()

    def resync(self) -> None:
        self.must_resync = True
        self._wake.set()

    def close(self) -> None:
        self.is_closing = True
        self._wake.set()


class EventHub:
    """See the module. `run` listens until it is cancelled."""

    def __init__(self, redis: Redis, ledger: Ledger) -> None:
        self._redis = redis
        self._ledger = ledger
        self._watchers: defaultdict[tuple[str, str], set[Watcher]] = defaultdict(set)
        self._is_away = False
        self.is_closing = False  # the gateway stops

    @asynccontextmanager
    async def watch(self, user: str, task_id: str = ALL) -> AsyncIterator[Watcher]:
        """`task_id` empty: all tasks of `user`."""
        key, watcher = (quoted_user(user), task_id), Watcher()
        self._watchers[key].add(watcher)
        if self.is_closing:
            watcher.close()
        try:
            yield watcher
        finally:
            self._watchers[key].discard(watcher)
            if not self._watchers[key]:
                del self._watchers[key]

    def count(self, user: str) -> int:
        """How many watch anything of `user` here."""
        quoted = quoted_user(user)
        return sum(len(watchers) for (owner, _), watchers in self._watchers.items() if owner == quoted)

    def close(self) -> None:
        """Every stream and every wait ends now."""
        self.is_closing = True
        for watcher in self._all():
            watcher.close()

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if not self._is_away:
                    log.warning("events interrupted", extra={"detail": type(error).__name__})
                self._is_away = True
                await asyncio.sleep(RECONNECT_S)

    async def replay(self, *, task: Task | None = None, user: str = "", after: str) -> list[Event]:
        """The events of a task, or of all of `user`'s, after the id `after`, oldest first."""
        key = self._ledger.keys.events(task.id) if task is not None else self._ledger.keys.user_events(user)
        found = cast(
            list[tuple[str, dict[str, str]]],
            await self._redis.xrange(key, min=f"({after}", max="+"),
        )
        events = [Event(i, e.get("task", task.id if task else ""), e["kind"], e["data"]) for i, e in found]
        newest = {event.task_id: event for event in events if event.kind == "preview"}
        shown = [event for event in events if event.kind != "preview" or newest[event.task_id] is event]
        return [event for event in [await self._with_preview(event) for event in shown] if event.data]

    async def has_dropped(self, user: str, *, after: str) -> bool:
        """Whether some of `user`'s events after the id `after` are kept no longer, so that a replay would leave them
        out."""
        key = self._ledger.keys.user_events(user)
        oldest = cast(list[tuple[str, dict[str, str]]], await self._redis.xrange(key, count=1))
        if oldest and stream_id(oldest[0][0]) <= stream_id(after):
            return False
        return after != NO_ID or await self._redis.xlen(key) >= USER_EVENTS

    async def snapshot(self, task_id: str) -> tuple[str, Task | None]:
        """A task as it stands, and the id of the last event that it reflects, read in one moment."""
        async with self._redis.pipeline(transaction=True) as calls:
            calls.xrevrange(self._ledger.keys.events(task_id), count=1)
            calls.hgetall(self._ledger.keys.task(task_id))
            last, held = await calls.execute()
        task = Task.from_hash(held) if "status" in held else None
        return (last[0][0] if last else NO_ID), task

    async def last_id(self, user: str) -> str:
        last = await self._redis.xrevrange(self._ledger.keys.user_events(user), count=1)
        return str(last[0][0]) if last else NO_ID

    async def _with_preview(self, event: Event) -> Event:
        if event.kind != "preview" or event.data:
            return event
        return Event(event.id, event.task_id, event.kind, await self._ledger.preview(event.task_id) or "")

    async def _listen(self) -> None:
        async with self._redis.pubsub() as messages:
            await messages.subscribe(self._ledger.keys.channel)
            while True:
                message = await messages.get_message(timeout=LISTEN_S)
                if message is None:
                    continue
                if message["type"] == "subscribe":  # again, too, after redis-py has reconnected by itself
                    self._is_away = False
                    for watcher in self._all():
                        watcher.resync()
                elif message["type"] == "message":
                    self._hand_out(message["data"])

    def _hand_out(self, message: str) -> None:
        user, task_id, event_id, kind, data = message.split("\n", 4)
        event = Event(event_id, task_id, kind, data)
        for key in ((user, task_id), (user, ALL)):
            for watcher in tuple(self._watchers.get(key, ())):
                watcher.put(event)

    def _all(self) -> list[Watcher]:
        return [watcher for watchers in self._watchers.values() for watcher in watchers]


def stream_id(text: str) -> tuple[int, int]:
    """A stream's id as numbers, to be compared. Raises ValueError."""
    moment, _, number = text.partition("-")
    return int(moment), int(number or "0")


def is_stream_id(text: str) -> bool:
    """Whether Redis takes `text` for an id; Python's `int` takes more."""
    return STREAM_ID.fullmatch(text) is not None


def sse(*, event: str, data: Any, event_id: str | None = None) -> bytes:
    """One server-sent event; `data` is JSON text, or a value that becomes it."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, allow_nan=False)
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: {text}\n\n".encode()
