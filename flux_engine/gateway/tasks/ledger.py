"""The ledger: every accepted task, in Redis, written before the queue is asked.

    made = await ledger.create(task, job_input, key=..., body_hash=...)
    await ledger.advance(task.id, ...)              what a worker or the queue says of it
    await ledger.finish(task, status="completed", ...)

Keys, all under `flux:NAMESPACE:gateway:`, with names quoted so that no user reaches another's:

    task:ID          hash, see task.py           input:ID      what the worker is sent, as JSON
    events:ID        stream for replay           preview:ID    the newest preview alone
    index:USER       sorted set of the user's tasks by time
    user:USER        stream of all of a user's events
    due              sorted set of tasks by when to look at them next
    key:USER:HASH    an Idempotency-Key
    join:USER:HASH  the newest task of one body
    file:KEY         set of the tasks that have a file
    changes          channel: USER, task, event id, kind and data, a line each

Nothing of a task that has not ended expires. Every method may raise RedisError: then nothing is known to have happened,
and the call may be repeated.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast
from urllib.parse import quote

from redis.asyncio import Redis

from flux_engine.gateway.task import Kind, Status, Task, TaskError
from flux_engine.gateway.tasks import lua

KEY_LASTS_S: Final = 86_400
JOIN_LASTS_S: Final = 600
PREVIEW_LASTS_S: Final = 600
LEASE_S: Final = 10.0  # of a look at a task
SUBMIT_LEASE_S: Final = 30.0
FIRST_LOOK_S: Final = 5.0
INDEX_KEPT: Final = 10_000  # tasks of a user that a listing reaches


@dataclass(frozen=True, slots=True)
class Known:
    """A task that this very key or body made before."""

    task_id: str
    body_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """News of a task that has not ended. `preview` is a data URI."""

    stage: str | None = None
    progress: float = 0.0
    seq: int = 0
    eta_seconds: float | None = None
    counts: Mapping[str, int] | None = None
    preview: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a task ends."""

    status: Literal["completed", "failed", "cancelled"]
    error: TaskError | None = None
    result: Mapping[str, Any] | None = None
    files: tuple[Mapping[str, Any], ...] = ()
    work_used: float | None = None
    cached: bool = False
    warnings: tuple[str, ...] = ()
    fingerprint: str | None = None


class Ledger:
    """See the module. One a process."""

    def __init__(self, redis: Redis, *, namespace: str, keep_s: int) -> None:
        self._redis = redis
        self._root = f"flux:{quote(namespace, safe='', errors='backslashreplace')}:gateway"
        self._keep_s = keep_s
        self._scripts: dict[str, Any] = {}
        self.channel: Final = f"{self._root}:changes"

    # ------------------------------------------------------------------------------------ creating

    async def create(
        self,
        task: Task,
        job_input: Mapping[str, Any],
        *,
        body_hash: str,
        key: str | None = None,
    ) -> Known | None:
        """Write a new task, ended or not; or, where `key` made one before, what that was."""
        first_event = task.status if task.is_final else "status"
        await self._hold_files(task)
        reply = await self._run(
            lua.CREATE,
            [
                self.task_key(task.id),
                f"{self._root}:input:{task.id}",
                f"{self._root}:index:{_quoted(task.user)}",
                self._due,
                self.events_key(task.id),
                self.user_events_key(task.user),
                self._idempotency(task.user, key) if key is not None else "",
                self._join(task.user, body_hash),
            ],
            [
                task.id,
                task.created_at,
                task.created_at + (0 if task.is_final else FIRST_LOOK_S),
                json.dumps(job_input),
                body_hash,
                KEY_LASTS_S,
                JOIN_LASTS_S,
                self.channel,
                _quoted(task.user),
                first_event,
                json.dumps(task.public()),
                *_pairs(task.to_hash()),
            ],
        )
        return Known(reply[1], reply[2]) if reply[0] == "known" else None

    async def known_by_key(self, user: str, key: str) -> Known | None:
        found = await self._redis.hmget(self._idempotency(user, key), ["task", "body"])
        task_id, body = cast(list[str | None], found)
        return Known(task_id, body or "") if task_id is not None else None

    async def known_by_body(self, user: str, body_hash: str) -> str | None:
        """The newest task that this user made by this very body within the last ten minutes."""
        return cast(str | None, await self._redis.get(self._join(user, body_hash)))

    # ------------------------------------------------------------------------------------- looking

    async def get(self, task_id: str) -> Task | None:
        held = await cast(Awaitable[dict[str, str]], self._redis.hgetall(self.task_key(task_id)))
        return Task.from_hash(held) if "status" in held else None

    async def many(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of `task_ids` that are still known, in their order."""
        async with self._redis.pipeline(transaction=False) as calls:
            for task_id in task_ids:
                calls.hgetall(self.task_key(task_id))
            found = await calls.execute()
        return [Task.from_hash(held) for held in found if "status" in held]

    async def input(self, task_id: str) -> dict[str, Any] | None:
        text = await self._redis.get(f"{self._root}:input:{task_id}")
        return json.loads(text) if text is not None else None

    async def newest(self, user: str, *, before: tuple[float, str] | None, count: int) -> list[tuple[str, float]]:
        """Ids of a user's tasks and when they were created, the newest first, from `before` on."""
        key = f"{self._root}:index:{_quoted(user)}"
        oldest = time.time() - 2 * self._keep_s
        await self._redis.zremrangebyscore(key, "-inf", oldest)
        await self._redis.zremrangebyrank(key, 0, -INDEX_KEPT - 1)
        top = "+inf" if before is None else before[0]
        # Tasks of one moment may stand on both sides of a page's end: those that were shown are left out.
        found = await self._redis.zrevrangebyscore(key, top, "-inf", start=0, num=count + 50, withscores=True)
        pairs = sorted(cast(list[tuple[str, float]], found), key=_newest_first)
        if before is not None:
            pairs = [pair for pair in pairs if _newest_first(pair) > _newest_first((before[1], before[0]))]
        return pairs[:count]

    async def preview(self, task_id: str) -> str | None:
        return cast(str | None, await self._redis.get(f"{self._root}:preview:{task_id}"))

    # ------------------------------------------------------------------------------------ changing

    async def advance(self, task: Task, news: Advance, *, is_told: bool) -> bool:
        """A worker says how far `task` is, `is_told` where through Redis. False where it was known, is older than what
        is known, or has ended."""
        changed = replace(
            task,
            status="processing",
            started_at=task.started_at or time.time(),
            stage=news.stage or task.stage,
            progress=round(news.progress, 4),
            seq=news.seq,
            eta_seconds=news.eta_seconds,
            counts=news.counts or {},
            waiting_for=None,
        )
        names = ("status", "started_at", "stage", "progress", "seq", "eta_seconds", "counts", "waiting_for")
        return await self._apply(
            task,
            "progress",
            pairs=_only(changed, names),
            kind="status",
            event=event_of(changed),
            progress=changed.progress,
            seq=news.seq,
            is_told=is_told,
            preview=json.dumps(event_of(changed) | {"preview": news.preview}) if news.preview else "",
        )

    async def note(self, task: Task, **changes: Any) -> bool:
        """Change what its user sees of a task that has not ended."""
        changed = replace(task, **changes)
        return await self._apply(task, "state", pairs=_only(changed, changes), kind="status", event=event_of(changed))

    async def wish_cancelled(self, task: Task) -> bool:
        """From now on nothing submits it again. False where it has ended."""
        now = time.time()
        changed = replace(task, cancelling=True)
        return await self._apply(
            task, "state", pairs={"cancelling": "1"}, kind="status", event=event_of(changed), look_at=now
        )

    async def finish(self, task: Task, ending: Ending) -> Task | None:
        """End it, once: the ended task, or None where somebody ended it before."""
        changed = replace(
            task,
            status=ending.status,
            finished_at=time.time(),
            progress=1.0 if ending.status == "completed" else task.progress,
            error=ending.error,
            result=ending.result,
            files=ending.files,
            work_used=ending.work_used,
            cached=ending.cached,
            warnings=tuple(dict.fromkeys((*task.warnings, *ending.warnings))),
            fingerprint=ending.fingerprint or task.fingerprint,
            cancelling=False,
            waiting_for=None,
        )
        await self._hold_files(changed)
        is_first = await self._apply(
            task,
            "final",
            pairs=_only(changed, (*changed.to_hash(), "waiting_for", "cancelling"), but=("ticket", "attempt", "seq")),
            kind=ending.status,
            event=changed.public(),
            look_at=time.time(),
        )
        return changed if is_first else None

    async def orphan(self, task: Task, *, look_at: float) -> None:
        """Nobody waits for it any more: unless somebody does until `look_at`, it is cancelled."""
        await self._redis.hset(self.task_key(task.id), "orphaned_at", str(time.time()))
        await self.look_at(task.id, look_at)

    async def adopt(self, task: Task) -> None:
        """Somebody waits for it again."""
        await self._redis.hdel(self.task_key(task.id), "orphaned_at")

    async def discard(self, task: Task, *, key: str | None) -> None:
        """A task that was made by mistake was never there."""
        await self._redis.delete(
            self.task_key(task.id),
            f"{self._root}:input:{task.id}",
            self.events_key(task.id),
            *([self._idempotency(task.user, key)] if key is not None else []),
        )
        await self._redis.zrem(self._due, task.id)
        await self._redis.zrem(f"{self._root}:index:{_quoted(task.user)}", task.id)

    async def _hold_files(self, task: Task) -> None:
        """Before its end is told: from then on another task's purge must know that these files are needed."""
        for file in task.files:
            holders = self._holders(str(file["key"]))
            await self._redis.sadd(holders, task.id)
            await self._redis.expire(holders, 2 * self._keep_s)

    async def release_files(self, task: Task) -> list[str]:
        """The keys of those of its files that no other task has."""
        free: list[str] = []
        for file in task.files:
            holders = self._holders(str(file["key"]))
            async with self._redis.pipeline(transaction=True) as calls:
                calls.srem(holders, task.id)
                calls.scard(holders)
                _, left = await calls.execute()
            if left == 0:
                free.append(str(file["key"]))
        return free

    async def purge_at_end(self, task: Task) -> None:
        """Its files go as soon as it has ended."""
        await self._redis.hset(self.task_key(task.id), "is_purge_wished", "1")

    async def purge(self, task: Task) -> None:
        """Its files are gone, and so is what it was made from."""
        if await self._redis.exists(self.task_key(task.id)):
            await self._redis.hset(self.task_key(task.id), "is_purged", "1")
        await self._redis.delete(f"{self._root}:input:{task.id}", f"{self._root}:preview:{task.id}")

    # --------------------------------------------------------------------------------- to the queue

    async def begin_submit(self, task_id: str) -> bool:
        """Whether it is the caller's to submit; nobody else does for half a minute."""
        return bool(await self._run(lua.BEGIN_SUBMIT, [self.task_key(task_id)], [time.time(), SUBMIT_LEASE_S]))

    async def end_submit(self, task_id: str, *, look_at: float) -> None:
        """It was not submitted after all."""
        await self._redis.hdel(self.task_key(task_id), "submitting_until")
        await self.look_at(task_id, look_at)

    async def set_ticket(self, task_id: str, ticket: str, *, look_at: float) -> Literal["kept", "cancel", "ended"]:
        """The queue has it under `ticket`; what became of it meanwhile."""
        arguments: list[str | float] = [task_id, ticket, time.time(), look_at]
        reply = int(await self._run(lua.TICKET, [self.task_key(task_id), self._due], arguments))
        return "kept" if reply == 1 else "cancel" if reply == 2 else "ended"

    async def lose_ticket(self, task: Task) -> bool:
        """The queue knows nothing of it any more."""
        arguments: list[str | float] = [task.id, task.ticket or "", time.time()]
        return bool(await self._run(lua.LOSE_TICKET, [self.task_key(task.id), self._due], arguments))

    async def claim_due(self, *, at_most: int, rate: float, burst: float) -> list[str]:
        """The tasks to look at now, for this replica alone for ten seconds."""
        arguments = [time.time(), LEASE_S, at_most, rate, burst]
        found = await self._run(lua.CLAIM, [self._due, f"{self._root}:looks"], arguments)
        return cast(list[str], found)

    async def set_ended(self, task_id: str, *, look_at: float) -> None:
        """Its worker has done all it will do."""
        now = time.time()
        await self._run(lua.SET_ENDED, [self.task_key(task_id), self._due], [task_id, now, look_at])

    async def look_at(self, task_id: str, at: float) -> None:
        await self._run(lua.LOOK_AT, [self._due, self.task_key(task_id)], [task_id, at])

    async def settle(self, task: Task) -> None:
        """All that follows from its end is done; it expires in its time."""
        keys = [
            self.task_key(task.id),
            self._due,
            f"{self._root}:input:{task.id}",
            self.events_key(task.id),
            f"{self._root}:preview:{task.id}",
        ]
        await self._run(lua.SETTLE, keys, [task.id, self._keep_s])
        await self._redis.expire(self.user_events_key(task.user), self._keep_s)

    async def count_due(self) -> int:
        return int(await self._redis.zcard(self._due))

    # --------------------------------------------------------------------------------------- keys

    def events_key(self, task_id: str) -> str:
        return f"{self._root}:events:{task_id}"

    def user_events_key(self, user: str) -> str:
        return f"{self._root}:user:{_quoted(user)}"

    @property
    def _due(self) -> str:
        return f"{self._root}:due"

    def task_key(self, task_id: str) -> str:
        return f"{self._root}:task:{task_id}"

    def _holders(self, key: str) -> str:
        return f"{self._root}:file:{key}"

    def _idempotency(self, user: str, key: str) -> str:
        return f"{self._root}:key:{_quoted(user)}:{hashlib.sha256(key.encode()).hexdigest()}"

    def _join(self, user: str, body_hash: str) -> str:
        return f"{self._root}:join:{_quoted(user)}:{body_hash}"

    async def _apply(
        self,
        task: Task,
        mode: Literal["progress", "state", "final"],
        *,
        pairs: Mapping[str, str],
        kind: str,
        event: Mapping[str, Any],
        progress: float = 0.0,
        seq: int = 0,
        look_at: float | None = None,
        preview: str = "",
        is_told: bool = False,
    ) -> bool:
        keys = [
            self.task_key(task.id),
            self._due,
            self.events_key(task.id),
            self.user_events_key(task.user),
            f"{self._root}:preview:{task.id}",
        ]
        arguments = [
            task.id,
            mode,
            progress,
            seq,
            "" if look_at is None else look_at,
            self.channel,
            _quoted(task.user),
            kind,
            json.dumps(event),
            preview,
            PREVIEW_LASTS_S,
            time.time() if is_told else "",
            *_pairs(pairs),
        ]
        return bool(await self._run(lua.APPLY, keys, arguments))

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str | float]) -> Any:
        """By EVALSHA, so that a long script travels once."""
        made = self._scripts.get(script)
        if made is None:
            made = self._scripts[script] = self._redis.register_script(script)
        return await made(keys=list(keys), args=list(arguments))


def event_of(task: Task) -> dict[str, Any]:
    """What a `status` event says: that which changes while a task is under way."""
    said = task.public()
    names = ("task_id", "status", "stage", "progress", "eta_seconds", "waiting_for", "cancelling", *task.counts)
    return {name: said[name] for name in names if name in said}


def quoted_user(user: str) -> str:
    """`user` as it stands in keys and on the channel."""
    return _quoted(user)


def new_task(
    task_id: str, *, user: str, kind: Kind, status: Status = "queued", now: float | None = None, **facts: Any
) -> Task:
    """A task that begins now."""
    return Task(id=task_id, user=user, kind=kind, status=status, created_at=now or time.time(), **facts)


def _newest_first(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


def _only(task: Task, names: Any, *, but: Sequence[str] = ()) -> dict[str, str]:
    """The named fields of `task` for a hash; an empty text removes one."""
    held = task.to_hash()
    return {name: held.get(name, "") for name in dict.fromkeys(names) if name not in but}


def _pairs(held: Mapping[str, str]) -> list[str]:
    return [part for pair in held.items() for part in pair]


def _quoted(user: str) -> str:
    return quote(user, safe="", errors="backslashreplace")
