"""What is written to the server while no job waits for it.

    late.soon(write)        # returns at once; each once, in the order of calls with the same delay
    late.insist(write)      # the same for what the server did not take when a job ended: again, once it is back
    late.soon(write, is_insisted=True)      # one, and where that fails the other

`write` raises CacheAway where the server is away. `insist` goes on for a minute: a server that restarts is back within
seconds. What a killed worker takes along and what is made long before the server is back are for the volume
(results/pending.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from flux_engine.cache.redis_link import CacheAway

INSIST_S: Final = 60.0
LOOK_S: Final = 0.5


class LateWrites:
    """See the module. For one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._in_order = asyncio.Lock()  # calls at the same time have connections of their own

    def soon(self, write: Callable[[], Awaitable[object]], *, delay_s: float = 0.0, is_insisted: bool = False) -> None:
        writing = asyncio.create_task(self._write(write, delay_s, is_insisted), name="write to the cache")
        self._under_way.add(writing)
        writing.add_done_callback(self._under_way.discard)

    async def settled(self) -> None:
        """Wait for what was to be written soon."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def insist(self, write: Callable[[], Awaitable[object]]) -> None:
        waiting = asyncio.create_task(_insist(write), name="late write to the cache")
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        """What the server has not taken by now is not written."""
        await self.settled()
        for waiting in self._waiting:
            waiting.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def _write(self, write: Callable[[], Awaitable[object]], delay_s: float, is_insisted: bool) -> None:
        await asyncio.sleep(delay_s)
        async with self._in_order:
            try:
                await write()
            except CacheAway:
                if is_insisted:
                    self.insist(write)


async def _insist(write: Callable[[], Awaitable[object]]) -> None:
    until = time.monotonic() + INSIST_S
    while time.monotonic() < until:
        await asyncio.sleep(LOOK_S)
        with suppress(CacheAway):
            await write()
            return
