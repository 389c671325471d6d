"""The ledger: every accepted task, in Redis, written before the queue is asked.

    made = await ledger.beginnings.create(task, job_input, key=..., body_hash=...)
    await ledger.advance(task.id, ...)              what a worker or the queue says of it
    await ledger.finish(task, status="completed", ...)

What each of its keys holds stands in keys.py. Nothing of a task that has not ended expires. Every method may raise
RedisError: then nothing is known to have happened, and the call may be repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger import lua
from flux_engine.gateway.tasks.ledger.agenda import Agenda
from flux_engine.gateway.tasks.ledger.beginnings import Beginnings
from flux_engine.gateway.tasks.ledger.holders import FileHolders
from flux_engine.gateway.tasks.ledger.keys import LedgerKeys, quoted_user
from flux_engine.gateway.tasks.ledger.loose import LooseParts
from flux_engine.gateway.tasks.ledger.news import Advance, Ending, event_of
from flux_engine.gateway.tasks.ledger.reader import LedgerReader
from flux_engine.gateway.tasks.ledger.scripts import Scripts, flat

PREVIEW_LASTS_S: Final = 600
CHANGED, MOVED_ON = 1, -1  # what APPLY returns
Mode = Literal["progress", "note", "wish", "orphan", "final"]
ORPHANED: Final = "orphaned"  # an event for those who wait here; clients are not told
NO_ID: Final = "0-0"
SET_BY_OTHERS: Final = ("ticket", "attempt", "seq", "is_purge_wished", "is_purged")  # since the task was read


class Ledger(LedgerReader):
    """See the module. One a process."""

    def __init__(self, redis: Redis, *, namespace: str, keep_s: int) -> None:
        super().__init__(redis, LedgerKeys.of(namespace), keep_s=keep_s)
        self._scripts = Scripts(redis)
        self.agenda: Final = Agenda(redis, self._scripts, self.keys)
        self.loose: Final = LooseParts(redis, self.keys)
        self.holders: Final = FileHolders(redis, self.keys, keep_s=keep_s)
        self.beginnings: Final = Beginnings(redis, self._scripts, self.keys, self.holders, index_s=self._index_s)

    async def own(self, task_id: str, user: str) -> Task | None:
        """The task, where it is `user`'s. Another's is not read, so that it takes the time of an unknown one."""
        held = await self._scripts.run(lua.OWN, [self.keys.task(task_id)], [user])
        return Task.from_hash(dict(zip(held[::2], held[1::2], strict=True))) if held else None

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
        became = await self._apply(
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
        return became == CHANGED

    async def note(self, task: Task, **changes: Any) -> bool:
        """Change what its user sees of a task, unless it has moved on since it was read."""
        changed = replace(task, **changes)
        became = await self._apply(
            task,
            "note",
            pairs=_only(changed, changes),
            kind="status",
            event=event_of(changed),
            progress=task.progress,
            seq=task.status,
        )
        return became == CHANGED

    async def wish_cancelled(self, task: Task, *, as_orphan: bool = False) -> bool:
        """From now on nothing submits it again. False where it has ended, or is to be cancelled `as_orphan` and is none
        any more."""
        event = {"task_id": task.id, "cancelling": True}  # what else is known of it may have changed meanwhile
        pairs, now = {"cancelling": "1"}, time.time()
        mode: Mode = "orphan" if as_orphan else "wish"
        return await self._apply(task, mode, pairs=pairs, kind="status", event=event, look_at=now) == CHANGED

    async def finish(self, task: Task, ending: Ending) -> Task | None:
        """End it, once: the ended task, or None where somebody ended it before."""
        changed, became = await self._finish_as_read(task, ending)
        while became == MOVED_ON:
            changed, became = await self._finish_as_read(await self.get(task.id) or task, ending)
        if became == CHANGED:
            return changed
        known = await self.get(task.id)
        held = [file["key"] for file in known.files] if known is not None else []
        await self.holders.release(replace(changed, files=tuple(f for f in changed.files if f["key"] not in held)))
        return None

    async def _finish_as_read(self, task: Task, ending: Ending) -> tuple[Task, int]:
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
        await self.holders.hold(changed)
        became = await self._apply(
            task,
            "final",
            pairs=_only(changed, (*changed.to_hash(), "waiting_for", "cancelling"), but=SET_BY_OTHERS),
            kind=ending.status,
            event=changed.public(),
            progress=task.progress,
            look_at=time.time(),
        )
        return changed, became

    async def orphan(self, task: Task, *, until: float) -> None:
        """One of its clients has hung up: unless somebody waits for it by `until`, it is cancelled. Whoever waits
        already hears of it on the channel, and adopts it."""
        await self._redis.hset(self.keys.task(task.id), "orphaned_at", str(time.time()))
        await self.agenda.look_by(task.id, until)
        await self._redis.publish(
            self.keys.channel, "\n".join((quoted_user(task.user), task.id, NO_ID, ORPHANED, "{}"))
        )

    async def adopt(self, task: Task) -> None:
        """Somebody waits for it: where it is an orphan it is none any more."""
        if task.orphaned_at is not None and not task.is_final:
            await self._redis.hdel(self.keys.task(task.id), "orphaned_at")

    async def awaited(self, task: Task) -> Task | None:
        """`task` as it stands, for somebody who waits for it; as it stood where Redis does not answer; None where
        Redis has lost it."""
        try:
            found = await self.get(task.id)
            if found is not None:
                await self.adopt(found)
        except RedisError:
            return task
        return found

    async def purge_at_end(self, task: Task) -> None:
        """Its files go as soon as it has ended."""
        await self._redis.hset(self.keys.task(task.id), "is_purge_wished", "1")

    async def purge(self, task: Task) -> None:
        """Its files are gone, and so is what it was made from."""
        await self._redis.delete(self.keys.input(task.id), self.keys.preview(task.id))
        if await self._redis.exists(self.keys.task(task.id)):  # last, for nobody purges it again
            await self._redis.hset(self.keys.task(task.id), "is_purged", "1")

    async def settle(self, task: Task) -> None:
        """All that follows from its end is done; it expires in its time."""
        keys = [
            self.keys.task(task.id),
            self.keys.due,
            self.keys.input(task.id),
            self.keys.events(task.id),
            self.keys.preview(task.id),
        ]
        await self._scripts.run(lua.SETTLE, keys, [task.id, self._keep_s])
        await self._redis.expire(self.keys.user_events(task.user), self._keep_s)

    async def _apply(
        self,
        task: Task,
        mode: Mode,
        *,
        pairs: Mapping[str, str],
        kind: str,
        event: Mapping[str, Any],
        progress: float = 0.0,
        seq: int | str = 0,
        look_at: float | None = None,
        preview: str = "",
        is_told: bool = False,
    ) -> int:
        keys = [
            self.keys.task(task.id),
            self.keys.due,
            self.keys.events(task.id),
            self.keys.user_events(task.user),
            self.keys.preview(task.id),
        ]
        arguments = [
            task.id,
            mode,
            progress,
            seq,
            "" if look_at is None else look_at,
            self.keys.channel,
            quoted_user(task.user),
            kind,
            json.dumps(event),
            preview,
            PREVIEW_LASTS_S,
            time.time() if is_told else "",
            *flat(pairs),
        ]
        return int(await self._scripts.run(lua.APPLY, keys, arguments))


def _only(task: Task, names: Any, *, but: Sequence[str] = ()) -> dict[str, str]:
    """The named fields of `task` for a hash; an empty text removes one."""
    held = task.to_hash()
    return {name: held.get(name, "") for name in dict.fromkeys(names) if name not in but}
