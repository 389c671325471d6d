"""The gateway's calls to Redis, to the queue and to the store: each known by where it is made, one of them broken."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Literal, NamedTuple

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from flux_engine.errors import StorageFailed
from flux_engine.queues.job_queue import QueueAway
from flux_engine.queues.runpod import RunPodQueue
from flux_engine.results.folder import FolderStore

Part = Literal["request", "task", "loop"]
Way = Literal["refused", "away", "lost", "twice"]
WAYS: Final[dict[str, tuple[Way, ...]]] = {
    "redis": ("refused", "away", "lost", "twice"),
    "queue": ("away", "lost"),
    "store": ("away", "lost"),
}
PASSED: Final = ("flux_engine/gateway/", "flux_engine/cache/")
OF_A_TASK: Final = ("submit ", "look at ")
LOOPS: Final = ("sweep", "dispatcher", "webhooks")
NEITHER: Final = ("events", "notices", "endings")


class Place(NamedTuple):
    """Where a call is made: to what, by which functions, and whether for the first time or a later one."""

    to: str
    way_there: tuple[str, ...]
    time: int

    def __str__(self) -> str:
        return f"{self.to} {' < '.join(self.way_there)} #{self.time}"


@dataclass(slots=True)
class Fault:
    """What is to fail, and how; nothing without a `place`. `away`: it is not carried out; `lost`: its answer does not
    come; `twice`: Redis's client sends it again."""

    place: Place | None = None
    way: Way = "away"
    is_over: bool = False


class Calls:
    """See the module. While `of` is open, the calls of one part are noted: of requests, of steps of single tasks, or of
    the loops that find these; a loop's only where they found something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.places: list[Place] = []
        self._part: Part | None = None
        self._fault = Fault()
        self._own: asyncio.Task[Any] | None = None
        self._patch(monkeypatch)

    @contextmanager
    def of(self, part: Part, fault: Fault) -> Iterator[None]:
        self.seen, self.places = Counter(), []
        self._part, self._fault, self._own = part, fault, asyncio.current_task()
        try:
            yield
        finally:
            self._part = None

    async def through(self, to: str, call: Callable[[], Awaitable[Any]], lost: Exception) -> Any:
        task = asyncio.current_task()
        if self._part is None or task is self._own or task is None or _part_of(task) != self._part:
            return await call()
        is_loop = self._part == "loop"
        answer = await call() if is_loop else None
        if is_loop and not answer:
            return answer
        way_there = _way_there()
        self.seen[to, way_there] += 1
        place = Place(to, way_there, self.seen[to, way_there])
        self.places.append(place)
        fault = self._fault
        if place != fault.place or fault.is_over:
            return answer if is_loop else await call()
        fault.is_over = True
        if fault.way == "refused":
            raise OutOfMemoryError("OOM command not allowed when used memory > 'maxmemory'")
        if fault.way == "away":
            raise lost
        answer = answer or await call()
        if fault.way == "lost":
            raise lost
        return await call() if fault.way == "twice" else answer

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds: dict[type[Any], tuple[str, Exception, tuple[str, ...]]] = {
            Redis: ("redis", RedisConnectionError("gone"), ("execute_command",)),
            RunPodQueue: ("queue", QueueAway("the queue does not answer"), ("submit", "status", "cancel")),
            FolderStore: ("store", StorageFailed("the store does not answer"), ("put", "exists", "get", "delete")),
        }
        for kind, (to, lost, names) in kinds.items():
            for name in names:
                monkeypatch.setattr(kind, name, self._watched(to, getattr(kind, name), lost))
        execute = Pipeline.execute

        async def pipelined(pipeline: Any, *arguments: Any, **more: Any) -> Any:
            stack = list(pipeline.command_stack)

            async def call() -> Any:
                pipeline.command_stack = list(stack)
                return await execute(pipeline, *arguments, **more)

            return await self.through("redis", call, RedisConnectionError("gone"))

        monkeypatch.setattr(Pipeline, "execute", pipelined)

    def _watched(self, to: str, method: Any, lost: Exception) -> Any:
        async def watched(whose: Any, *arguments: Any, **more: Any) -> Any:
            return await self.through(to, lambda: method(whose, *arguments, **more), lost)

        return watched


def _part_of(task: asyncio.Task[Any]) -> Part | None:
    name, work = task.get_name(), getattr(task.get_coro(), "__qualname__", "")
    if name.startswith(OF_A_TASK) or work == "WebhookManager._send":
        return "task"
    if name in LOOPS:
        return "loop"
    return None if name in NEITHER else "request"


def _way_there() -> tuple[str, ...]:
    """The functions of the gateway that lead to this call, the nearest first."""
    found: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if any(part in path for part in PASSED):
            module = path.rpartition("/")[2].removesuffix(".py")
            found.append(f"{module}:{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(found)
