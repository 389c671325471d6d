"""Key records in Redis, and what has been revoked.

    ROOT:keys          hash: key id -> record (keys.py)
    ROOT:epochs        hash: user -> seconds since 1970; tokens of that user issued before it are refused

A record is kept for `KEPT_S` in this process, so that a busy client costs one look-up a second and a revoked key is
refused within a second everywhere. While Redis is away, records go on being used for `AWAY_S`: nobody can revoke a key
then either. A key that this process has not seen cannot be told from a guess meanwhile.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flux_engine.cache.redis_link import CacheAway, RedisLink
from flux_engine.gateway.security.keys import KeyRecord

KEPT_S: Final = 1.0
AWAY_S: Final = 300.0
MAX_KEPT: Final = 10_000

# KEYS: keys, epochs. ARGV: key id, user. A key's record, and the epoch of its user or, without a key, of `user`.
_LOOK: Final = """
local record = ARGV[1] ~= '' and redis.call('HGET', KEYS[1], ARGV[1]) or false
local user = ARGV[2]
if record then user = cjson.decode(record).user end
return {record or '', redis.call('HGET', KEYS[2], user) or ''}
"""
# KEYS: keys. ARGV: key id, record. 0 where the id is taken.
_ADD: Final = "return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])"
_LIST: Final = "return redis.call('HVALS', KEYS[1])"
# KEYS: keys. ARGV: key id, seconds since 1970. Repeating it changes nothing.
_REVOKE: Final = """
local raw = redis.call('HGET', KEYS[1], ARGV[1])
if not raw then return 0 end
local record = cjson.decode(raw)
if type(record.revoked_at) ~= 'number' then
  record.revoked_at = tonumber(ARGV[2])
  record.epoch = record.epoch + 1
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(record))
end
return 1
"""
_END_TOKENS: Final = "return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])"


@dataclass(frozen=True, slots=True)
class Looked:
    """What the store says of a key, or of a user without one."""

    record: KeyRecord | None
    user_epoch: float  # tokens issued before it are ended


@dataclass(frozen=True, slots=True)
class _Kept:
    looked: Looked
    at: float


class KeyStore:
    """All keys of one namespace. `root` is what its Redis keys begin with."""

    def __init__(self, link: RedisLink, *, root: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._keys = f"{root}:keys"
        self._epochs = f"{root}:epochs"
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def look(self, key_id: str | None, *, user: str = "") -> Looked:
        """The record of `key_id`, and when tokens of its user, or of `user`, were ended last. Raises CacheAway."""
        name = (key_id or "", user)
        kept = self._kept.get(name)
        if kept is not None and self._clock() - kept.at < KEPT_S:
            return kept.looked
        try:
            looked = await self._ask(*name)
        except CacheAway:
            if kept is not None and self._clock() - kept.at < AWAY_S:
                return kept.looked
            raise
        self._kept[name] = _Kept(looked, self._clock())
        self._kept.move_to_end(name)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return looked

    async def add(self, record: KeyRecord) -> bool:
        """Keep a new record; False where its id is taken. Raises CacheAway."""
        return bool(await self._link.eval(_ADD, [self._keys], [record.id, record.model_dump_json()]))

    async def all(self) -> list[KeyRecord]:
        """Every record, oldest first. Raises CacheAway."""
        found = [KeyRecord.parse(raw) for raw in await self._link.eval(_LIST, [self._keys], [])]
        return sorted((record for record in found if record is not None), key=lambda record: record.created_at)

    async def revoke(self, key_id: str) -> bool:
        """End a key and its tokens; False where there is no such key. Raises CacheAway."""
        return bool(await self._link.eval(_REVOKE, [self._keys], [key_id, repr(time.time())]))

    async def end_tokens(self, user: str) -> None:
        """End every token of `user` that was issued before now, whoever issued it. Raises CacheAway."""
        await self._link.eval(_END_TOKENS, [self._epochs], [user, repr(time.time())])

    async def _ask(self, key_id: str, user: str) -> Looked:
        raw, epoch = await self._link.eval(_LOOK, [self._keys, self._epochs], [key_id, user])
        return Looked(KeyRecord.parse(raw) if raw else None, float(epoch) if epoch else 0.0)
