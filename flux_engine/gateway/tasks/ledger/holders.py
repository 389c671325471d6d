"""Which tasks have a file: the files of one that is purged go only where no other task has them."""

from __future__ import annotations

from redis.asyncio import Redis

from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger.keys import LedgerKeys


class FileHolders:
    """The ledger's; every method may raise RedisError."""

    def __init__(self, redis: Redis, keys: LedgerKeys, *, keep_s: int) -> None:
        self._redis = redis
        self._keep_s = keep_s
        self._keys = keys

    async def hold(self, task: Task) -> None:
        """Before its end is told: from then on another task's purge must know that these files are needed."""
        for file in task.files:
            holders = self._keys.holders(str(file["key"]))
            await self._redis.sadd(holders, task.id)
            await self._redis.expire(holders, 2 * self._keep_s)

    async def release(self, task: Task) -> list[str]:
        """The keys of those of its files that no other task has."""
        free: list[str] = []
        for file in task.files:
            holders = self._keys.holders(str(file["key"]))
            async with self._redis.pipeline(transaction=True) as calls:
                calls.srem(holders, task.id)
                calls.scard(holders)
                _, left = await calls.execute()
            if left == 0:
                free.append(str(file["key"]))
        return free
