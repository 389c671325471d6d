"""What the ledger knows, read: one task, many, a user's newest."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger.keys import LedgerKeys

INDEX_KEPT: Final = 10_000  # tasks of a user that a listing reaches


class LedgerReader:
    """The ledger's reading half; every method may raise RedisError."""

    def __init__(self, redis: Redis, keys: LedgerKeys, *, keep_s: int) -> None:
        self._redis = redis
        self._keep_s = keep_s
        self._index_s: Final = 2 * keep_s  # how far back a listing reaches
        self.keys: Final = keys

    async def get(self, task_id: str) -> Task | None:
        held = await cast(Awaitable[dict[str, str]], self._redis.hgetall(self.keys.task(task_id)))
        return Task.from_hash(held) if "status" in held else None

    async def many(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of `task_ids` that are still known, in their order."""
        async with self._redis.pipeline(transaction=False) as calls:
            for task_id in task_ids:
                calls.hgetall(self.keys.task(task_id))
            found = await calls.execute()
        return [Task.from_hash(held) for held in found if "status" in held]

    async def input(self, task_id: str) -> dict[str, Any] | None:
        text = await self._redis.get(self.keys.input(task_id))
        return json.loads(text) if text is not None else None

    async def newest(self, user: str, *, before: tuple[float, str] | None, count: int) -> list[tuple[str, float]]:
        """Ids of a user's tasks and when they were created, the newest first, from `before` on."""
        key = self.keys.index(user)
        top = "+inf" if before is None else before[0]
        # Tasks of one moment may stand on both sides of a page's end: those that were shown are left out.
        found = await self._redis.zrevrangebyscore(
            key, top, time.time() - self._index_s, start=0, num=count + 50, withscores=True
        )
        pairs = sorted(cast(list[tuple[str, float]], found), key=_newest_first)
        if before is not None:
            pairs = [pair for pair in pairs if _newest_first(pair) > _newest_first((before[1], before[0]))]
        return pairs[:count]

    async def preview(self, task_id: str) -> str | None:
        return cast(str | None, await self._redis.get(self.keys.preview(task_id)))


def _newest_first(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]
