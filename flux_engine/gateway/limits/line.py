"""The line of tasks that wait for their turn, fair between users.

    ROOT:line:ring:PRIORITY          sorted set: users with waiting tasks, by whose turn comes first
    ROOT:line:wait:PRIORITY:USER     sorted set: that user's tasks, in their order
    ROOT:line:tasks                  hash: waiting task -> priority and user
    ROOT:line:flight                 hash: task in flight -> user
    ROOT:line:flight:USER            set: that user's tasks in flight
    ROOT:line:last                   sorted set: users by their last turn
    ROOT:line:tick, served           count arrivals and turns, and turns alone

Users are served in turn, one task each: first those with the fewest tasks in flight, of these whoever had no turn for
longest. So whoever has 500 tasks waiting delays another's first by one. A user with as many in flight as allowed keeps
the place in the ring and is passed over. Tasks of low priority come when no other waits, and every eighth turn, so that
they come at all. Every method may raise CacheAway.

A step that is sent twice is done once, but `next`: a task that its answer was lost for is in flight without having been
submitted, which the sweep of tasks sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from flux_engine.cache.redis_link import RedisLink
from flux_engine.gateway.limits.policy import never
from flux_engine.gateway.seams import Priority, Turn

LOW_EVERY: Final = 8
REMEMBERED: Final = 10_000  # users whose last turn is known

# KEYS: tasks, flight, ring, the user's waiting tasks, tick, the user's of the other priority, last.
# ARGV: user, task, priority, most that may wait. 1 entered, 0 was there, -1 too many.
ENTER: Final = """
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 or redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return 0 end
if redis.call('ZCARD', KEYS[4]) + redis.call('ZCARD', KEYS[6]) >= tonumber(ARGV[4]) then return -1 end
local tick = redis.call('INCR', KEYS[5])
redis.call('ZADD', KEYS[4], tick, ARGV[2])
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. ' ' .. ARGV[1])
redis.call('ZADD', KEYS[3], 'NX', redis.call('ZSCORE', KEYS[7], ARGV[1]) or tick - 1e15, ARGV[1])
return 1
"""

# KEYS: tasks, flight, tick, served, last. ARGV: root, most in flight a user, most in flight, how often low is first,
# how many users are remembered.
NEXT: Final = """
local root = ARGV[1]
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then return false end
local order = {'normal', 'low'}
if (tonumber(redis.call('GET', KEYS[4]) or 0) + 1) % tonumber(ARGV[4]) == 0 then order = {'low', 'normal'} end
-- Of those who may have one more in flight, the user with the fewest, and of several the one whose turn comes first.
local function chosen(ring)
  local user, least = nil, tonumber(ARGV[2])
  for _, name in ipairs(redis.call('ZRANGE', ring, 0, -1)) do
    local count = redis.call('SCARD', root .. ':flight:' .. name)
    if count < least then user, least = name, count end
    if least == 0 then break end
  end
  return user, least
end
for _, priority in ipairs(order) do
  local ring = root .. ':ring:' .. priority
  local user, in_flight = chosen(ring)
  while user do
    local waiting = root .. ':wait:' .. priority .. ':' .. user
    local first = redis.call('ZPOPMIN', waiting)
    local tick = redis.call('INCR', KEYS[3])
    if redis.call('EXISTS', waiting) == 1 then redis.call('ZADD', ring, tick, user)
    else redis.call('ZREM', ring, user) end
    if first[1] then
      redis.call('ZADD', KEYS[5], tick, user)
      redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -1 - tonumber(ARGV[5]))
      redis.call('HDEL', KEYS[1], first[1])
      redis.call('HSET', KEYS[2], first[1], user)
      redis.call('SADD', root .. ':flight:' .. user, first[1])
      redis.call('INCR', KEYS[4])
      return {user, first[1], in_flight}
    end
    user, in_flight = chosen(ring)
  end
end
return false
"""

# KEYS: tasks, flight. ARGV: root, task.
LEAVE: Final = """
local root, task = ARGV[1], ARGV[2]
local user = redis.call('HGET', KEYS[2], task)
if user then
  redis.call('HDEL', KEYS[2], task)
  redis.call('SREM', root .. ':flight:' .. user, task)
  return 1
end
local place = redis.call('HGET', KEYS[1], task)
if not place then return 0 end
local priority, name = place:match('^(%S+) (.*)$')
local waiting = root .. ':wait:' .. priority .. ':' .. name
redis.call('HDEL', KEYS[1], task)
redis.call('ZREM', waiting, task)
if redis.call('EXISTS', waiting) == 0 then redis.call('ZREM', root .. ':ring:' .. priority, name) end
return 1
"""

# KEYS: tasks. ARGV: root, task. How many turns come before the task's.
POSITION: Final = """
local root = ARGV[1]
local place = redis.call('HGET', KEYS[1], ARGV[2])
if not place then return false end
local priority, name = place:match('^(%S+) (.*)$')
local rank = redis.call('ZRANK', root .. ':wait:' .. priority .. ':' .. name, ARGV[2])
if not rank then return false end
local before, is_behind = rank, false
for _, user in ipairs(redis.call('ZRANGE', root .. ':ring:' .. priority, 0, -1)) do
  if user == name then is_behind = true
  else
    local turns = is_behind and rank or rank + 1
    before = before + math.min(turns, redis.call('ZCARD', root .. ':wait:' .. priority .. ':' .. user))
  end
end
if priority == 'low' then
  for _, user in ipairs(redis.call('ZRANGE', root .. ':ring:normal', 0, -1)) do
    before = before + redis.call('ZCARD', root .. ':wait:normal:' .. user)
  end
end
return before
"""

# KEYS: tasks, flight, the user's tasks of either priority, the user's in flight.
COUNTS: Final = """
return {redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2]),
        redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4]), redis.call('SCARD', KEYS[5])}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineTerms:
    """How many tasks may be with the queue at once, and how many of a user may wait.

    `in_flight` is asked at every turn: the number of workers, where the queue can tell, lets no task of one user stand
    in the queue before another's.
    """

    in_flight_per_user: int = 8
    waiting_per_user: int = 2_000
    in_flight: Callable[[], int] = lambda: 64


@dataclass(frozen=True, slots=True)
class LineCounts:
    """Tasks of everybody and of one user."""

    waiting: int
    in_flight: int
    waiting_of_user: int = 0
    in_flight_of_user: int = 0


class FairLine:
    """`Line` (seams.py)."""

    def __init__(self, link: RedisLink, terms: LineTerms, *, root: str) -> None:
        self._link = link
        self._terms = terms
        self._root = f"{root}:line"

    async def enter(self, user: str, task_id: str, priority: Priority = "normal") -> None:
        """Let a task wait, unless it does or is in flight. Raises TooMany where too many of this user wait."""
        name = quote(user, safe="")
        other = "low" if priority == "normal" else "normal"
        places = (f"ring:{priority}", f"wait:{priority}:{name}", "tick", f"wait:{other}:{name}", "last")
        keys = self._keys("tasks", "flight", *places)
        arguments: list[str | int] = [name, task_id, priority, self._terms.waiting_per_user]
        entered = await self._link.eval(ENTER, keys, arguments)
        if entered < 0:
            raise never(
                f"{self._terms.waiting_per_user} of your tasks wait already: let some of them end",
                [],
                ["tasks-waiting"],
            )

    async def next(self) -> Turn | None:
        """Whose turn it is, in flight from now on; None while the bounds allow none."""
        terms, keys = self._terms, self._keys("tasks", "flight", "tick", "served", "last")
        bounds: list[str | int] = [self._root, terms.in_flight_per_user, terms.in_flight(), LOW_EVERY, REMEMBERED]
        answer = await self._link.eval(NEXT, keys, bounds)
        return Turn(unquote(answer[0].decode()), answer[1].decode(), is_first=answer[2] == 0) if answer else None

    async def leave(self, user: str, task_id: str) -> None:
        """The task waits no longer and is no longer in flight."""
        await self._link.eval(LEAVE, self._keys("tasks", "flight"), [self._root, task_id])

    async def position(self, task_id: str) -> int | None:
        """How many turns come before the task's; None where it does not wait."""
        before = await self._link.eval(POSITION, self._keys("tasks"), [self._root, task_id])
        return None if before is None else int(before)

    async def in_flight(self) -> int:
        """How many tasks are, of all users."""
        return (await self.counts()).in_flight

    async def counts(self, user: str = "") -> LineCounts:
        """How many tasks wait and are in flight, of everybody and of `user`."""
        name = quote(user, safe="")
        keys = self._keys("tasks", "flight", f"wait:normal:{name}", f"wait:low:{name}", f"flight:{name}")
        return LineCounts(*await self._link.eval(COUNTS, keys, []))

    def _keys(self, *names: str) -> list[str]:
        return [f"{self._root}:{name}" for name in names]
