"""A gateway whose jobs the test itself ends, for what the bundled model would not do when asked.

with by_hand(redis.url, folder) as gateway:
    sign_in(page, gateway)
    ask_for(page, "a red sun")
    job = gateway.take()
    gateway.finish(job, error=failure("content_filtered"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from local_platform.job import Job
from tests.gateway.world import World, world

T = TypeVar("T")


@dataclass(frozen=True)
class ByHand:
    """A `World` on a thread of its own: Playwright's loop has this one."""

    world: World
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"{self.world.url}/"

    @property
    def key(self) -> str:
        return self.world.headers["Authorization"].removeprefix("Bearer ")

    def take(self) -> Job:
        return self._there(self.world.hand.take())

    def progress(self, job: Job, progress: float, *, seq: int, **more: Any) -> None:
        async def tell() -> None:
            self.world.hand.progress(job, progress, seq=seq, **more)

        self._there(tell())

    def finish(self, job: Job, output: dict[str, Any] | None = None, *, error: str | None = None) -> None:
        async def finish() -> None:
            self.world.hand.finish(job, output, error=error)

        self._there(finish())

    def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


@contextmanager
def by_hand(redis_url: str, folder: Path) -> Iterator[ByHand]:
    ready: Future[ByHand] = Future()
    over = asyncio.Event()

    async def serve() -> None:
        try:
            async with world(redis_url, folder) as made:
                ready.set_result(ByHand(made, asyncio.get_running_loop()))
                await over.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    gateway = ready.result()
    try:
        yield gateway
    finally:
        gateway.loop.call_soon_threadsafe(over.set)
        thread.join()
