"""Waiting for what another process does, where no event says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

PATIENCE_S = 300.0  # a stall of a busy machine is no failure


async def until(condition: Callable[[], bool | Awaitable[bool]], *, patience_s: float = PATIENCE_S) -> None:
    """Return once `condition` holds. Raises TimeoutError after `patience_s`."""
    async with asyncio.timeout(patience_s):
        while not await _holds(condition):  # noqa: ASYNC110 - nothing in this process hears of it
            await asyncio.sleep(0.02)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    answer = condition()
    return await answer if isawaitable(answer) else answer
