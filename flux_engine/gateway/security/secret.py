"""The gateway's own secret, from which every other one is derived.

GATEWAY_SECRET where it is set. Else a random one that all replicas share, kept in Redis: whoever can read Redis could
then sign tokens and webhooks, which a secret in the environment prevents.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from pydantic import SecretStr

from flux_engine.cache.redis_link import RedisLink

MIN_SECRET_BYTES: Final = 32

# KEYS: secret. ARGV: a new one. The one that is kept.
_KEEP: Final = "redis.call('SETNX', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])"


async def gateway_secret(configured: SecretStr | None, link: RedisLink, *, root: str) -> bytes:
    """The secret of this gateway. Raises CacheAway where it is kept in Redis and Redis is away."""
    if configured is not None:
        return configured.get_secret_value().encode()
    kept = await link.eval(_KEEP, [f"{root}:secret"], [secrets.token_urlsafe(MIN_SECRET_BYTES)])
    return bytes(kept)


def derived(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose, from which neither the secret nor those of another purpose can be told."""
    return hmac.new(secret, purpose.encode("utf-8", "replace"), hashlib.sha256).digest()
