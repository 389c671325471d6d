"""What gateway and Celery workers tell one another of each job, in Redis.

A job has one record from the moment before its message is sent: queued, running under a lease that its worker renews,
then completed, failed, timed_out or cancelled. Celery itself hands a killed worker's job out again only after its
visibility time-out, so a record whose lease has run out becomes `lost`, and whoever keeps the ledger submits the job
anew. So does one that is still queued while later jobs of its line began some time ago, or while the broker holds no
message: its own is gone.

Every change of state is one Lua script: a worker that was frozen and wakes finds that its job is no longer its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from redis.asyncio import Redis

RecordState = Literal["queued", "running", "completed", "failed", "cancelled", "timed_out", "lost"]
Claim = Literal["claimed", "cancelled", "taken", "unknown"]
Holding = Literal["held", "cancelling", "lost"]

OPEN_S: Final = 7 * 86_400  # a record that nobody ends
ENDED_S: Final = 3_600  # the gateway fetches a result within seconds
OVERTAKEN_S: Final = 10  # a later job of the same line began so long ago
MISSING_S: Final = 3  # between taking a message and claiming its job a worker needs milliseconds
CLAIMS_KEPT: Final = 256
WORKER_S: Final = 30  # a worker that says nothing for so long is gone

# Each script is given the record's key first. Times are the server's own.
_NOW: Final = "local t = redis.call('TIME'); local now = tonumber(t[1]) + tonumber(t[2]) / 1e6\n"
# KEYS record, sequence. ARGV line, seconds to keep.
_PUT: Final = (
    _NOW
    + """
local seq = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], 'state', 'queued', 'line', ARGV[1], 'seq', seq, 'at', now)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return seq
"""
)
# KEYS record, lease, claims. ARGV worker, lease in ms, how many claims are kept.
_CLAIM: Final = (
    _NOW
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'unknown' end
if state == 'cancelled' then return 'cancelled' end
if state ~= 'queued' then return 'taken' end
redis.call('HSET', KEYS[1], 'state', 'running', 'worker', ARGV[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[3], now, redis.call('HGET', KEYS[1], 'seq'))
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[3]))
return 'claimed'
"""
)
# KEYS record, lease. ARGV worker, lease in ms, progress as JSON or ''.
_RENEW: Final = """
local held = redis.call('HMGET', KEYS[1], 'state', 'worker', 'cancelling')
if held[1] ~= 'running' or held[2] ~= ARGV[1] then return 'lost' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'progress', ARGV[3]) end
return held[3] and 'cancelling' or 'held'
"""
# KEYS record, lease. ARGV worker, state, outcome as JSON, seconds to keep.
_FINISH: Final = """
local held = redis.call('HMGET', KEYS[1], 'state', 'worker')
if held[1] ~= 'running' or held[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'outcome', ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""
# KEYS record, lease, claims. ARGV seconds after which it is overtaken. Returns the record as it stands after the look.
_LOOK: Final = (
    _NOW
    + """
local held = redis.call('HMGET', KEYS[1], 'state', 'seq')
if held[1] == 'running' and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], 'state', 'lost')
elseif held[1] == 'queued' then
  local last = redis.call('ZREVRANGEBYSCORE', KEYS[3], now - tonumber(ARGV[1]), '-inf', 'LIMIT', 0, 1)[1]
  if last and tonumber(last) > tonumber(held[2]) then redis.call('HSET', KEYS[1], 'state', 'lost') end
end
return redis.call('HGETALL', KEYS[1])
"""
)
# KEYS record. ARGV seconds for which its message has to be missing.
_MISS: Final = (
    _NOW
    + """
local held = redis.call('HMGET', KEYS[1], 'state', 'missing_at')
if held[1] ~= 'queued' then return held[1] end
if not held[2] then
  redis.call('HSET', KEYS[1], 'missing_at', now)
elseif now - tonumber(held[2]) >= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'state', 'lost')
  return 'lost'
end
return 'queued'
"""
)
# KEYS record. ARGV channel, ticket, seconds to keep. A running job is its worker's to end.
_CANCEL: Final = """
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'queued' then
  redis.call('HSET', KEYS[1], 'state', 'cancelled')
  redis.call('EXPIRE', KEYS[1], ARGV[3])
elseif state == 'running' then
  redis.call('HSET', KEYS[1], 'cancelling', 1)
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
return state
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One job as it stands. `outcome` is the parcel of its result, or `{"error": text}`."""

    state: RecordState
    line: str
    queued_at: float = 0.0  # by the server's clock
    progress: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None


class JobRecords:
    """For one event loop. Every call raises redis-py's errors where the server cannot be reached."""

    def __init__(self, redis: Redis, *, namespace: str, lease_s: float) -> None:
        self.redis: Final = redis
        self.lease_s: Final = lease_s
        self._base = f"flux:{namespace}:celery"

    @property
    def cancel_channel(self) -> str:
        """Where the tickets of running jobs that are to end are published."""
        return f"{self._base}:cancel"

    async def put(self, ticket: str, *, line: str) -> None:
        """A new record: queued in `line`, which is a queue and a priority."""
        await self._eval(_PUT, [self._record(ticket), f"{self._base}:seq:{line}"], [line, OPEN_S])

    async def drop(self, ticket: str) -> None:
        """Its message was not sent, or nobody knows: should it be there all the same, a worker skips it."""
        await self.redis.delete(self._record(ticket))

    async def claim(self, ticket: str, *, line: str, worker: str) -> Claim:
        """Make the job `worker`'s own. `taken`: it was begun before, which a message delivered twice finds."""
        keys = [self._record(ticket), self._lease(ticket), self._claims(line)]
        said = await self._eval(_CLAIM, keys, [worker, self._lease_ms(), CLAIMS_KEPT])
        return "unknown" if said not in get_args(Claim) else said

    async def renew(self, ticket: str, *, worker: str, progress: Mapping[str, Any] | None = None) -> Holding:
        """Keep the lease, and say how far the job is."""
        text = "" if progress is None else json.dumps(progress)
        said = await self._eval(_RENEW, [self._record(ticket), self._lease(ticket)], [worker, self._lease_ms(), text])
        return "lost" if said not in get_args(Holding) else said

    async def finish(self, ticket: str, *, worker: str, state: RecordState, outcome: Mapping[str, Any]) -> bool:
        """End the job. False where it is no longer `worker`'s: somebody else is told of another end."""
        keys = [self._record(ticket), self._lease(ticket)]
        return bool(await self._eval(_FINISH, keys, [worker, state, json.dumps(outcome), ENDED_S]))

    async def look(self, ticket: str, *, line: str) -> Record | None:
        """The job as it stands; `lost` where its worker or its message is gone. None: unknown."""
        keys = [self._record(ticket), self._lease(ticket), self._claims(line)]
        flat = await self._eval(_LOOK, keys, [OVERTAKEN_S])
        held = dict(zip(flat[::2], flat[1::2], strict=True))
        if held.get("state") not in get_args(RecordState):
            return None
        return Record(
            state=held["state"],
            line=held.get("line", ""),
            queued_at=float(held.get("at", 0.0)),
            progress=_parsed(held.get("progress")),
            outcome=_parsed(held.get("outcome")),
        )

    async def miss(self, ticket: str) -> bool:
        """The broker holds no message of this queued job. True once that has been so for some seconds: it is lost."""
        return bool(await self._eval(_MISS, [self._record(ticket)], [MISSING_S]) == "lost")

    async def cancel(self, ticket: str) -> None:
        """A queued job is cancelled; a running one is told so, and ends in its own time."""
        await self._eval(_CANCEL, [self._record(ticket)], [self.cancel_channel, ticket, ENDED_S])

    async def present(self, worker: str, state: str) -> None:
        """A worker says that it is there: `initializing`, `idle` or `running`."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(f"{self._base}:workers", worker, state)
            pipeline.set(f"{self._base}:worker:{worker}", state, ex=WORKER_S)
            await pipeline.execute()

    async def leave(self, worker: str) -> None:
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.hdel(f"{self._base}:workers", worker)
            pipeline.delete(f"{self._base}:worker:{worker}")
            await pipeline.execute()

    async def workers(self) -> dict[str, int]:
        """How many workers are in each state; those that went without a word are forgotten."""
        known = [str(worker) for worker in await self.redis.hkeys(f"{self._base}:workers")]
        if not known:
            return {}
        states = await self.redis.mget([f"{self._base}:worker:{worker}" for worker in known])
        counts: dict[str, int] = {}
        for worker, state in zip(known, states, strict=True):
            if state is None:
                await self.redis.hdel(f"{self._base}:workers", worker)
            else:
                counts[str(state)] = counts.get(str(state), 0) + 1
        return counts

    async def _eval(self, script: str, keys: list[str], arguments: list[str | int]) -> Any:
        return await self.redis.eval(script, len(keys), *keys, *arguments)

    def _record(self, ticket: str) -> str:
        return f"{self._base}:job:{ticket}"

    def _lease(self, ticket: str) -> str:
        return f"{self._base}:lease:{ticket}"

    def _claims(self, line: str) -> str:
        return f"{self._base}:claims:{line}"

    def _lease_ms(self) -> int:
        return round(self.lease_s * 1000)


def _parsed(text: str | None) -> Mapping[str, Any] | None:
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else None
