"""Parts of inputs that are in the store before their task is in the ledger, noted so that none is left there for a task
that never was: its process died, or Redis or the store did not answer in between."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final, NamedTuple, cast

from redis.asyncio import Redis

from flux_engine.gateway.tasks.ledger.keys import LedgerKeys

AT_ONCE: Final = 500


class Part(NamedTuple):
    """A stored part, and the task that it is meant for."""

    task_id: str
    file_key: str


class LooseParts:
    """The ledger's; every method may raise RedisError, and may be repeated."""

    def __init__(self, redis: Redis, keys: LedgerKeys) -> None:
        self._redis = redis
        self._key: Final = keys.loose

    async def note(self, task_id: str, file_keys: Iterable[str]) -> None:
        """Before they are stored."""
        now = time.time()
        await self._redis.zadd(self._key, {f"{task_id} {file_key}": now for file_key in file_keys})

    async def noted(self, *, before: float) -> list[Part]:
        """The oldest ones."""
        found = await self._redis.zrangebyscore(self._key, "-inf", before, start=0, num=AT_ONCE)
        return [Part(*text.split(" ", 1)) for text in cast(list[str], found)]

    async def settled(self, part: Part) -> None:
        """Its task has it, or it is gone."""
        await self._redis.zrem(self._key, " ".join(part))
