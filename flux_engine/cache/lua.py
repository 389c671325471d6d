"""The atomic steps of the cache: each is one Lua script and one round trip.

Keys, all under `flux:NAMESPACE:`, made of hashes and of quoted names, so that no prompt, job or namespace reaches
another's:

    STORE:FINGERPRINT:entry      the finished job, for CACHE_TTL_SECONDS
    STORE:FINGERPRINT:lease      the token of the job that generates it now, for the length of a lease
    STORE:FINGERPRINT:progress   how far that job is, for those that begin to wait later
    STORE:FINGERPRINT:events     channel: progress as JSON, or WAKE when the lease is free or the entry is written
    task:JOB                     a job's status

Every script gives the same result when it is sent twice, because a call is repeated when its connection breaks. A
server that is full or read-only still gives hits; leases are freed before anything is written, and a task's status may
fail to be written. Redis Cluster is not supported: the keys of one call lie in different slots.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from flux_engine.cache.redis_link import RedisLink
from flux_engine.job.fingerprint import SHA256
from flux_engine.results.entry import CacheEntry, TaskStatus

WAKE: Final = b"wake"
_FINGERPRINT = re.compile(SHA256)
_STORE = re.compile(r"[0-9a-f]{16}")

# KEYS: entry, lease, progress, task. ARGV: token, lease ms, task under way, task done up to its result, task ms,
# an entry that is none to the caller, or ''.
ACQUIRE: Final = """
local entry = redis.pcall('GET', KEYS[1])
if type(entry) == 'table' then redis.pcall('DEL', KEYS[1]); entry = false end
if entry and (entry ~= ARGV[6] or entry == '') then
  redis.pcall('SET', KEYS[4], ARGV[4] .. entry .. '}', 'PX', ARGV[5])
  return {'hit', entry}
end
redis.pcall('SET', KEYS[4], ARGV[3], 'PX', ARGV[5])
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then
  return {'wait', redis.call('PTTL', KEYS[2]), redis.call('GET', KEYS[3]) or ''}
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[3])
return {'claimed'}
"""

# KEYS: lease, progress. ARGV: token, lease ms, progress or '', channel. Takes back a lease that a restart lost.
RENEW: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then
  redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
  redis.call('PUBLISH', ARGV[4], ARGV[3])
end
return 1
"""

# What a job's end writes: it may be late, and then says nothing of a job that was begun again since.
SAY: Final = """
local function say(key, task, ms)
  local there = redis.pcall('GET', key)
  local began = type(there) == 'string' and string.match(there, '"started_at":"([^"]*)"')
  local begins = string.match(task, '"started_at":"([^"]*)"')
  if began and begins and began > begins then return 0 end
  return redis.pcall('SET', key, task, 'PX', ms)
end
"""

# KEYS: entry, lease, progress, task. ARGV: token, entry, entry ms, task, task ms, channel.
COMPLETE: Final = f"""{SAY}
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2], KEYS[3]) end
local written = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
say(KEYS[4], ARGV[4], ARGV[5])
redis.call('PUBLISH', ARGV[6], 'wake')
return written
"""

# KEYS: lease, progress, task. ARGV: token, task, task ms, channel.
RELEASE: Final = f"""{SAY}
local is_owner = redis.call('GET', KEYS[1]) == ARGV[1]
if is_owner then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('PUBLISH', ARGV[4], 'wake')
end
say(KEYS[3], ARGV[2], ARGV[3])
return is_owner and 1 or 0
"""

# KEYS: entry. ARGV: the value that turned out to be unusable.
DISCARD: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

SET_ENTRY: Final = "return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"
BEGIN_TASK: Final = SET_ENTRY
END_TASK: Final = f"{SAY} return say(KEYS[1], ARGV[1], ARGV[2])"


@dataclass(frozen=True, slots=True)
class Hit:
    """The result exists; `raw` is not parsed yet."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class Claimed:
    """The caller holds the lease now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Another job holds the lease for `lease_s` more and has come as far as `progress`."""

    lease_s: float
    progress: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long things last, in seconds. A lease is renewed three times while it lasts."""

    lease_s: float = 15.0
    entry_s: float = 604_800.0
    wait_limit_s: float = 600.0  # the platform's own time-out of a job

    @property
    def renew_s(self) -> float:
        return self.lease_s / 3


class CacheScripts:
    """The cache of one namespace on one server, a method for each script. Every method may raise CacheAway."""

    def __init__(self, link: RedisLink, *, namespace: str, terms: Terms) -> None:
        self.link: Final = link
        self.terms: Final = terms
        self._root = f"flux:{quote(namespace, safe='', errors='backslashreplace')}"

    def slot(self, store: str, fingerprint: str) -> str:
        """What the keys of one fingerprint begin with. Raises ValueError for anything but two hashes."""
        if not _STORE.fullmatch(store) or not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError("a slot of the cache is named by two hashes")
        return f"{self._root}:{store}:{fingerprint}"

    def channel(self, slot: str) -> str:
        return f"{slot}:events"

    async def acquire(
        self, slot: str, token: str, *, task: TaskStatus, done: TaskStatus, except_for: bytes = b""
    ) -> Hit | Claimed | Wait:
        """Look up the entry and claim the lease where there is none. The job's status becomes `task`, or `done` after a
        hit. `except_for` is an entry that the caller has seen and cannot use, though others may."""
        head = done.model_dump_json(exclude={"result"})[:-1] + ',"result":'
        reply = await self.link.eval(
            ACQUIRE,
            [f"{slot}:entry", f"{slot}:lease", f"{slot}:progress", self._task_key(task.job_id)],
            [token, _ms(self.terms.lease_s), task.model_dump_json(), head, _ms(self.terms.entry_s), except_for],
        )
        match reply:
            case [b"hit", bytes(raw)]:
                return Hit(raw)
            case [b"wait", int(left_ms), bytes(progress)]:
                return Wait(max(left_ms, 1) / 1000, progress)
            case _:
                return Claimed()

    async def renew(self, slot: str, token: str, *, progress: Mapping[str, Any] | None) -> bool:
        """Renew the lease and publish progress; False where another job holds the lease."""
        text = json.dumps(progress, allow_nan=False) if progress is not None else ""
        keys = [f"{slot}:lease", f"{slot}:progress"]
        return bool(await self.link.eval(RENEW, keys, [token, _ms(self.terms.lease_s), text, self.channel(slot)]))

    async def complete(self, slot: str, token: str, *, entry: CacheEntry, task: TaskStatus) -> None:
        """Write the entry, free the lease and wake the waiters."""
        keys = [f"{slot}:entry", f"{slot}:lease", f"{slot}:progress", self._task_key(task.job_id)]
        lasting = _ms(self.terms.entry_s)
        arguments: list[str | int] = [
            token,
            entry.model_dump_json(),
            lasting,
            task.model_dump_json(),
            lasting,
            self.channel(slot),
        ]
        await self.link.eval(COMPLETE, keys, arguments)

    async def release(self, slot: str, token: str, *, task: TaskStatus) -> None:
        """Free the lease if it is the caller's, so that a waiter takes over."""
        keys = [f"{slot}:lease", f"{slot}:progress", self._task_key(task.job_id)]
        await self.link.eval(
            RELEASE, keys, [token, task.model_dump_json(), _ms(self.terms.entry_s), self.channel(slot)]
        )

    async def entry(self, slot: str) -> bytes | None:
        """The entry of a slot, not parsed yet."""
        return await self.link.get(f"{slot}:entry")

    async def set_entry(self, slot: str, entry: CacheEntry) -> None:
        await self.link.eval(SET_ENTRY, [f"{slot}:entry"], [entry.model_dump_json(), _ms(self.terms.entry_s)])

    async def discard(self, slot: str, raw: bytes) -> None:
        """Remove an unusable entry, unless another has replaced it."""
        await self.link.eval(DISCARD, [f"{slot}:entry"], [raw])

    async def set_task(self, task: TaskStatus) -> None:
        script = BEGIN_TASK if task.finished_at is None else END_TASK
        await self.link.eval(script, [self._task_key(task.job_id)], [task.model_dump_json(), _ms(self.terms.entry_s)])

    async def task(self, job_id: str) -> TaskStatus | None:
        raw = await self.link.get(self._task_key(job_id))
        return TaskStatus.parse(raw) if raw is not None else None

    def _task_key(self, job_id: str) -> str:
        name = quote(job_id, safe="", errors="backslashreplace")
        is_short = len(name) <= 128
        return f"{self._root}:task:{name if is_short else hashlib.sha256(name.encode()).hexdigest()}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
