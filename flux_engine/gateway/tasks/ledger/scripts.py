"""Lua scripts by EVALSHA, so that a long one travels once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis


class Scripts:
    """For one client."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._made: dict[str, Any] = {}

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | float]) -> Any:
        """What `script` returns. Raises RedisError."""
        made = self._made.get(script)
        if made is None:
            made = self._made[script] = self._redis.register_script(script)
        return await made(keys=list(keys), args=list(arguments))


def flat(held: Mapping[str, str]) -> list[str]:
    """Names and values of a hash in turn, as a script's arguments."""
    return [part for pair in held.items() for part in pair]
