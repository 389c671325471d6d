"""One Redis client for everything that the gateway keeps there, with a pool that waits instead of failing."""

from __future__ import annotations

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

CONNECTIONS: Final = 64
WAIT_S: Final = 5.0
SOCKET_TIMEOUT_S: Final = 3.0


def connect(url: str) -> Redis:
    """A client whose answers are text. Calls beyond the pool's size wait for a connection: redis-py's default pool
    raises at once, and fails at 200 concurrent calls."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=WAIT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(ExponentialBackoff(base=0.05, cap=0.4), 2),
        health_check_interval=15,
        decode_responses=True,
    )
    return Redis.from_pool(pool)
