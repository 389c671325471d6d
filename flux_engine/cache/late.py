"""What the server did not take when a job ended, written once it is back.

late.insist(write)      # returns at once; `write` raises CacheAway for as long as the server is away

For a minute: a server that restarts is back within seconds. What a killed worker takes along and what is made long
before the server is back are for the volume (results/pending.py).
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

    def insist(self, write: Callable[[], Awaitable[None]]) -> None:
        waiting = asyncio.create_task(_insist(write), name="late write to the cache")
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def close(self) -> None:
        """What has not been written by now is not."""
        for waiting in self._waiting:
            waiting.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


async def _insist(write: Callable[[], Awaitable[None]]) -> None:
    until = time.monotonic() + INSIST_S
    while time.monotonic() < until:
        await asyncio.sleep(LOOK_S)
        with suppress(CacheAway):
            await write()
            return
