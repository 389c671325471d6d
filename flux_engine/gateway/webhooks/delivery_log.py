"""Deliveries in Redis: the log that users read, and what is due when.

    ROOT:hook:ID            hash: the delivery, with its attempts as a JSON list
    ROOT:hooks:USER         sorted set: the user's newest deliveries, by time
    ROOT:hooks-due:USER     sorted set: the user's pending deliveries, by when to try next
    ROOT:hooks-users        sorted set: users with pending deliveries, by their earliest

A claim moves a delivery's time on by a lease: whoever claimed it has that long for one attempt, and if that replica
dies, another takes it up. Users are looked at one by one, so that nobody's pile is in front of anybody else's. Every
method may raise CacheAway, and may be repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from flux_engine.cache.redis_link import RedisLink
from flux_engine.gateway.webhooks.delivery import Attempt, Delivery, Place, State

KEPT_S: Final = 7 * 86_400
MAX_LOGGED: Final = 1_000  # deliveries of a user
MAX_PENDING: Final = 1_000  # deliveries of one user
MAX_ATTEMPTS: Final = 20  # attempts that the log keeps of one delivery
LEASE_S: Final = 60.0

# What follows a change of the user's pending deliveries: when to look at this user next.
_NEXT_OF_USER: Final = """
local function look_again(due, users, user)
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', users, first[2], user) else redis.call('ZREM', users, user) end
end
"""

# KEYS: hook, log, due, users. ARGV: user, id, now ms, ttl s, most logged, most pending, fields and values.
# 1 new, 0 known, -1 too many pending: kept in the log alone.
ADD: Final = (
    _NEXT_OF_USER
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[5]))
redis.call('EXPIRE', KEYS[2], ARGV[4])
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then
  redis.call('HSET', KEYS[1], 'state', 'failed')
  return -1
end
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
look_again(KEYS[3], KEYS[4], ARGV[1])
return 1
"""
)

# KEYS: users. ARGV: root, now ms, lease ms, most in all, most a user, then users that are not to be looked at.
CLAIM: Final = (
    _NEXT_OF_USER
    + """
local root, now, claimed, skipped = ARGV[1], tonumber(ARGV[2]), {}, {}
for i = 6, #ARGV do skipped[ARGV[i]] = true end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)) do
  if #claimed >= tonumber(ARGV[4]) then break end
  if not skipped[user] then
    local due = root .. ':hooks-due:' .. user
    local room = math.min(tonumber(ARGV[5]), tonumber(ARGV[4]) - #claimed)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, room)) do
      local hook = redis.call('HGETALL', root .. ':hook:' .. id)
      if #hook == 0 then redis.call('ZREM', due, id)
      else
        redis.call('ZADD', due, now + tonumber(ARGV[3]), id)
        table.insert(claimed, hook)
      end
    end
    look_again(due, KEYS[1], user)
  end
end
return claimed
"""
)

# KEYS: hook, due, users. ARGV: user, id, attempt, state, next ms or '', tries, most attempts, ttl s, how often it was
# asked for when it was claimed: where its user has asked for it since, it is due by that.
DONE: Final = (
    _NEXT_OF_USER
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then
  local attempts = cjson.decode(redis.call('HGET', KEYS[1], 'attempts') or '[]')
  table.insert(attempts, cjson.decode(ARGV[3]))
  while #attempts > tonumber(ARGV[7]) do table.remove(attempts, 1) end
  redis.call('HSET', KEYS[1], 'attempts', cjson.encode(attempts))
  redis.call('EXPIRE', KEYS[1], ARGV[8])
  if (redis.call('HGET', KEYS[1], 'asked') or '0') ~= ARGV[9] then return 1 end
  redis.call('HSET', KEYS[1], 'state', ARGV[4], 'tries', ARGV[6], 'next', ARGV[5])
end
if ARGV[5] == '' then redis.call('ZREM', KEYS[2], ARGV[2]) else redis.call('ZADD', KEYS[2], ARGV[5], ARGV[2]) end
look_again(KEYS[2], KEYS[3], ARGV[1])
return 1
"""
)

# KEYS: hook, due, users. ARGV: user, id, now ms, ttl s. 0 where this user has no such delivery.
AGAIN: Final = (
    _NEXT_OF_USER
    + """
if redis.call('HGET', KEYS[1], 'user') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'pending', 'tries', 0, 'next', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'asked', 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
look_again(KEYS[2], KEYS[3], ARGV[5])
return 1
"""
)

# KEYS: log. ARGV: root, ms or '+inf', id, most. What comes after this moment and id: newest first, by id within one ms.
LIST: Final = """
local found, ms, last, most = {}, ARGV[2], ARGV[3], tonumber(ARGV[4])
local count = most + redis.call('ZCOUNT', KEYS[1], ms, ms)
local held = redis.call('ZRANGE', KEYS[1], ms, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, count, 'WITHSCORES')
for i = 1, #held, 2 do
  local is_shown = tonumber(held[i + 1]) == tonumber(ms) and held[i] >= last
  local hook = not is_shown and #found < most and redis.call('HGETALL', ARGV[1] .. ':hook:' .. held[i]) or {}
  if #hook > 0 then table.insert(found, hook) end
end
return found
"""


class DeliveryLog:
    """All deliveries of one gateway."""

    def __init__(self, link: RedisLink, *, root: str, clock: Callable[[], float] = time.time) -> None:
        self._link = link
        self._clock = clock
        self._root = root

    async def add(self, delivery: Delivery) -> bool:
        """Make it due now, once; False where it was there, or where too many of the user's wait: it is in the log then,
        as failed."""
        held: dict[str, str | bytes | int] = {
            "id": delivery.id,
            "user": delivery.user,
            "task_id": delivery.task_id,
            "event": delivery.event,
            "url": delivery.url,
            "body": delivery.body,
            "created": _ms(delivery.created_at),
            "state": "pending",
            "tries": 0,
            "next": _ms(delivery.created_at),
        }
        flat = [part for item in held.items() for part in item]
        name = quote(delivery.user, safe="")
        keys = [self._hook(delivery.id), *self._of_user(name)]
        added = await self._link.eval(
            ADD, keys, [name, delivery.id, _ms(delivery.created_at), KEPT_S, MAX_LOGGED, MAX_PENDING, *flat]
        )
        return bool(added == 1)

    async def claim(self, *, most: int, most_of_user: int, skip: Iterable[str] = ()) -> list[Delivery]:
        """Deliveries that are due, each leased to the caller for one attempt; none of the users in `skip`."""
        bounds: list[str | int] = [self._root, _ms(self._clock()), _ms(LEASE_S), most, most_of_user]
        names = [quote(user, safe="") for user in skip]
        return [_read(hook) for hook in await self._link.eval(CLAIM, [f"{self._root}:hooks-users"], [*bounds, *names])]

    async def done(self, delivery: Delivery, attempt: Attempt, *, state: State, retry_s: float) -> None:
        """Note an attempt and what follows."""
        name = quote(delivery.user, safe="")
        due = _ms(self._clock() + retry_s) if state == "pending" else ""
        arguments = [name, delivery.id, json.dumps(attempt.to_json()), state, due, delivery.tries + 1]
        _, *keys = self._of_user(name)
        await self._link.eval(
            DONE, [self._hook(delivery.id), *keys], [*arguments, MAX_ATTEMPTS, KEPT_S, delivery.asked]
        )

    async def again(self, user: str, delivery_id: str) -> bool:
        """Make a delivery due now, with all its retries; False where this user has no such one."""
        name = quote(user, safe="")
        _, *keys = self._of_user(name)
        arguments: list[str | int] = [user, delivery_id, _ms(self._clock()), KEPT_S, name]
        return bool(await self._link.eval(AGAIN, [self._hook(delivery_id), *keys], arguments))

    async def of_user(self, user: str, *, limit: int, after: Place | None = None) -> list[Delivery]:
        """The newest deliveries, those after a place in the list where one is given."""
        log, *_ = self._of_user(quote(user, safe=""))
        place: list[str | int] = ["+inf", ""] if after is None else [_ms(after.created_at), after.id]
        return [_read(hook) for hook in await self._link.eval(LIST, [log], [self._root, *place, limit])]

    def _hook(self, delivery_id: str) -> str:
        return f"{self._root}:hook:{quote(delivery_id, safe='')}"

    def _of_user(self, name: str) -> list[str]:
        return [f"{self._root}:hooks:{name}", f"{self._root}:hooks-due:{name}", f"{self._root}:hooks-users"]


def _read(hook: Sequence[bytes]) -> Delivery:
    held: dict[str, bytes] = {name.decode(): value for name, value in zip(hook[::2], hook[1::2], strict=True)}
    text: dict[str, Any] = {name: value.decode() for name, value in held.items() if name != "body"}
    return Delivery(
        **{name: text[name] for name in ("id", "user", "task_id", "event", "url", "state")},
        body=held["body"],
        created_at=int(text["created"]) / 1000,
        tries=int(text["tries"]),
        next_at=int(text["next"]) / 1000 if text.get("next") else None,
        attempts=json.loads(text.get("attempts", "[]")),
        asked=int(text.get("asked", "0")),
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
