"""How often a user may ask, by the `limits` library: a sliding window, in Redis or, while that is away, in memory."""

from __future__ import annotations

import asyncio
import time
from typing import Final
from urllib.parse import quote

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.exceptions import RedisError

from flux_engine.cache.redis_link import CacheAway, RedisLink
from flux_engine.gateway.limits.policy import Policy, Standing

POOLED: Final = "async+redis://"  # the connections are the link's, whatever stands here


class RequestLimit:
    """Counts requests. For one event loop."""

    def __init__(self, link: RedisLink, policy: Policy, *, root: str) -> None:
        self._link = link
        self._policy = policy
        self._prefix = f"{root}:requests"
        self._item = RateLimitItemPerSecond(policy.quota, policy.window_s)
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._memory = MemoryStorage()
        self._alone = SlidingWindowCounterRateLimiter(self._memory)

    async def hit(self, user: str) -> tuple[bool, Standing]:
        """Whether one more request is within the quota, which it then counts to, and what is left."""
        try:
            async with asyncio.timeout(2 * self._link.call_timeout_s):
                return await self._hit(await self._limiter(), user)
        except CacheAway:
            return await self._hit(self._alone, user)
        except (RedisError, OSError) as error:
            self._link.lost(error)
            return await self._hit(self._alone, user)

    async def close(self) -> None:
        """Let go of what is kept in memory."""
        await self._memory.reset()

    async def _hit(self, limiter: SlidingWindowCounterRateLimiter, user: str) -> tuple[bool, Standing]:
        name = quote(user, safe="")
        is_within = await limiter.hit(self._item, name)
        left = await limiter.get_window_stats(self._item, name)
        reset_s = left.reset_time - time.time()
        return is_within, Standing(self._policy, left.remaining, min(max(reset_s, 0), self._policy.window_s))

    async def _limiter(self) -> SlidingWindowCounterRateLimiter:
        client = await self._link.client()
        if self._shared is None:
            pool = client.connection_pool
            storage = RedisStorage(POOLED, implementation="redispy", key_prefix=self._prefix, connection_pool=pool)  # type: ignore[arg-type]
            self._shared = SlidingWindowCounterRateLimiter(storage)
        return self._shared
