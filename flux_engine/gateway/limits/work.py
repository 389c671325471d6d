"""Work that users have asked for, in moving windows, exact to a thousandth of a unit.

    ROOT:work:USER        hash: `WINDOW:SLOT` -> thousandths used in that slot, for every window
    ROOT:reserved:TASK    hash: who reserved how much and when, and whether it was settled
    ROOT:open             sorted set: tasks whose reservation is open, by when to ask what became of them

Each step is one Lua script under the server's clock, so that any number of clients and replicas count together. A step
that is sent twice counts once. What was used has the last word: it is charged also where nothing was reserved, or where
the reservation was given back because nobody knew that the task was made. A script names keys that it finds in a
reservation: a Redis Cluster is not supported. memory.py counts in the same way while Redis is away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol
from urllib.parse import quote

from flux_engine.cache.redis_link import RedisLink
from flux_engine.gateway.limits.policy import MILLI, Policy, Standing

KEEP_S: Final = 2 * 86_400  # a reservation outlives every window and every task

# What both scripts need. ARGV[1] is the time in ms, or '' for the server's; the windows stand in ARGV[FIRST] and on:
# name, quota, slot ms, slots.
_COMMON: Final = """
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
end
local windows = {}
for i = FIRST, #ARGV, 4 do
  table.insert(windows, {name = ARGV[i], quota = tonumber(ARGV[i + 1]),
                         slot_ms = tonumber(ARGV[i + 2]), slots = tonumber(ARGV[i + 3])})
end
local function slot_of(window, moment) return math.floor(moment / window.slot_ms) end
local function ends(window, slot) return (slot + window.slots + 1) * window.slot_ms end
-- What was used by window, and when each slot of it comes back. Slots that have left their window are removed.
local function count(key)
  local held = redis.call('HGETALL', key)
  local by_name = {}
  for _, window in ipairs(windows) do
    window.used, window.parts = 0, {}
    by_name[window.name] = window
  end
  for i = 1, #held, 2 do
    local name, slot = held[i]:match('^(.-):(%d+)$')
    local window = by_name[name]
    slot = tonumber(slot)
    if window and ends(window, slot) > now then
      local used = tonumber(held[i + 1])
      window.used = window.used + used
      if used > 0 then table.insert(window.parts, {slot = slot, used = used}) end
    else
      redis.call('HDEL', key, held[i])
    end
  end
  for _, window in ipairs(windows) do
    table.sort(window.parts, function(a, b) return a.slot < b.slot end)
  end
end
-- ms until `amount` fits, 0 where it does now, -1 where it never will.
local function wait_ms(window, amount)
  if amount > window.quota then return -1 end
  local over = window.used + amount - window.quota
  for _, part in ipairs(window.parts) do
    if over <= 0 then break end
    over = over - part.used
    if over <= 0 then return ends(window, part.slot) - now end
  end
  return 0
end
local function standing()
  local said = {}
  for _, window in ipairs(windows) do
    local first = window.parts[1]
    table.insert(said, window.quota - window.used)
    table.insert(said, first and ends(window, first.slot) - now or 0)
  end
  return said
end
local function add(key, moment, amount, ttl)
  for _, window in ipairs(windows) do
    local slot = slot_of(window, moment)
    if amount ~= 0 and ends(window, slot) > now then
      redis.call('HINCRBY', key, window.name .. ':' .. string.format('%.0f', slot), string.format('%.0f', amount))
    end
  end
  redis.call('PEXPIRE', key, ttl)
end
"""

# KEYS: the user's windows, the task's reservation, open. ARGV: time, amount, ttl ms, task, windows from 5 on.
# The first of the answer is 'ok' or 'no', then ms to wait by window, then what is left and when more comes, by window.
RESERVE: Final = (
    _COMMON.replace("FIRST", "5")
    + """
local amount, ttl = tonumber(ARGV[2]), tonumber(ARGV[3])
count(KEYS[1])
local waits, fits = {}, true
for _, window in ipairs(windows) do
  local wait = wait_ms(window, amount)
  table.insert(waits, wait)
  if wait ~= 0 then fits = false end
end
local is_known = redis.call('EXISTS', KEYS[2]) == 1
if fits and not is_known then
  add(KEYS[1], now, amount, ttl)
  redis.call('HSET', KEYS[2], 'key', KEYS[1], 'amount', ARGV[2], 'at', string.format('%.0f', now), 'state', 'open')
  redis.call('PEXPIRE', KEYS[2], ttl)
  redis.call('ZADD', KEYS[3], now, ARGV[4])
  count(KEYS[1])
end
local answer = {(fits or is_known) and 'ok' or 'no'}
for _, wait in ipairs(waits) do table.insert(answer, wait) end
for _, value in ipairs(standing()) do table.insert(answer, value) end
return answer
"""
)

# KEYS: the task's reservation, the user's windows, open. ARGV: time, amount used, ttl ms, new state, task, when it was
# made where nothing was reserved, windows from 7 on. 1 where it changed.
CLOSE: Final = (
    _COMMON.replace("FIRST", "7")
    + """
redis.call('ZREM', KEYS[3], ARGV[5])
local held = redis.call('HMGET', KEYS[1], 'key', 'amount', 'at', 'state')
if held[4] == 'settled' or (ARGV[4] == 'returned' and held[4] ~= 'open') then return 0 end
local amount, ttl = tonumber(ARGV[2]), tonumber(ARGV[3])
local key, before, at = held[1] or KEYS[2], tonumber(held[2] or '0'), tonumber(held[3] or ARGV[6])
if not held[4] and amount == 0 then return 0 end
add(key, at, amount - before, ttl)
redis.call('HSET', KEYS[1], 'key', key, 'amount', ARGV[2], 'at', string.format('%.0f', at), 'state', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ttl)
return 1
"""
)

# KEYS: open. ARGV: time, ms that a reservation is left alone, at most. The tasks to ask for, not again for as long.
OPEN: Final = (
    _COMMON.replace("FIRST", "4")
    + """
local before = now - tonumber(ARGV[2])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before, 'LIMIT', 0, tonumber(ARGV[3]))
for _, task in ipairs(found) do redis.call('ZADD', KEYS[1], now, task) end
return found
"""
)

# KEYS: the user's windows. ARGV: time, windows from 2 on.
STANDING: Final = _COMMON.replace("FIRST", "2") + "count(KEYS[1]); return standing()"

State = Literal["settled", "returned"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether work was reserved; if not, how long each window has to be waited for (-1: for ever)."""

    is_reserved: bool
    waits_s: tuple[float, ...]
    standings: tuple[Standing, ...]


class WorkWindows(Protocol):
    """Counts work. Amounts are thousandths."""

    async def reserve(self, user: str, task_id: str, amount: int) -> Outcome:
        """Take `amount` from every window, or from none. A task that has reserved before reserves nothing more."""
        ...

    async def settle(self, task_id: str, amount: int, *, user: str, at: float) -> bool:
        """Replace what the task, made at `at`, has reserved by `amount`, once."""
        ...

    async def give_back(self, task_id: str) -> bool:
        """Take back what the task has reserved; False where there is nothing open."""
        ...

    async def standing(self, user: str) -> tuple[Standing, ...]:
        """What is left to `user`."""
        ...


class RedisWork:
    """WorkWindows that every replica shares. Every method may raise CacheAway."""

    def __init__(
        self, link: RedisLink, policies: Sequence[Policy], *, root: str, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` stands for the server's, in seconds."""
        self._link = link
        self._policies = tuple(policies)
        self._root = root
        self._clock = clock

    async def reserve(self, user: str, task_id: str, amount: int) -> Outcome:
        keys = [self._user_key(user), self._task_key(task_id), self._open]
        arguments: list[str | int] = [self._now(), amount, KEEP_S * 1000, task_id, *self._windows()]
        answer = await self._link.eval(RESERVE, keys, arguments)
        num = len(self._policies)
        waits = tuple(wait if wait < 0 else wait / 1000 for wait in answer[1 : 1 + num])
        return Outcome(answer[0] == b"ok", waits, self._standings(answer[1 + num :]))

    async def settle(self, task_id: str, amount: int, *, user: str, at: float) -> bool:
        return await self._close(task_id, amount, "settled", user=user, at=at)

    async def give_back(self, task_id: str) -> bool:
        return await self._close(task_id, 0, "returned")

    async def left_open(self, *, for_s: float, at_most: int) -> list[str]:
        """Tasks whose reservation has been open for so long, to be asked for by this caller alone."""
        found = await self._link.eval(OPEN, [self._open], [self._now(), round(for_s * 1000), at_most])
        return [task_id.decode() for task_id in found]

    async def _close(self, task_id: str, amount: int, state: State, *, user: str = "", at: float = 0.0) -> bool:
        keys = [self._task_key(task_id), self._user_key(user), self._open]
        arguments: list[str | int] = [self._now(), amount, KEEP_S * 1000, state, task_id, round(at * 1000)]
        return bool(await self._link.eval(CLOSE, keys, [*arguments, *self._windows()]))

    async def standing(self, user: str) -> tuple[Standing, ...]:
        return self._standings(await self._link.eval(STANDING, [self._user_key(user)], [self._now(), *self._windows()]))

    def _standings(self, flat: Sequence[int]) -> tuple[Standing, ...]:
        pairs = zip(self._policies, flat[::2], flat[1::2], strict=True)
        return tuple(Standing(policy, left / MILLI, reset / 1000) for policy, left, reset in pairs)

    def _windows(self) -> list[str | int]:
        return [
            part
            for policy in self._policies
            for part in (policy.name, policy.quota * MILLI, policy.slot_ms, policy.slots)
        ]

    def _now(self) -> str | int:
        return "" if self._clock is None else round(self._clock() * 1000)

    @property
    def _open(self) -> str:
        return f"{self._root}:open"

    def _user_key(self, user: str) -> str:
        return f"{self._root}:work:{quote(user, safe='')}"

    def _task_key(self, task_id: str) -> str:
        return f"{self._root}:reserved:{quote(task_id, safe='')}"
