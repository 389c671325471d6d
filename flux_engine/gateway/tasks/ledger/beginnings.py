"""The beginning of a task in the ledger: made once for each Idempotency-Key, and found again by it or by its body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis

from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger import lua
from flux_engine.gateway.tasks.ledger.holders import FileHolders
from flux_engine.gateway.tasks.ledger.keys import LedgerKeys, quoted_user
from flux_engine.gateway.tasks.ledger.news import Known
from flux_engine.gateway.tasks.ledger.reader import INDEX_KEPT
from flux_engine.gateway.tasks.ledger.scripts import Scripts, flat

KEY_LASTS_S: Final = 86_400
JOIN_LASTS_S: Final = 600
FIRST_LOOK_S: Final = 5.0


class Beginnings:
    """The ledger's; every method may raise RedisError, and may be repeated."""

    def __init__(self, redis: Redis, scripts: Scripts, keys: LedgerKeys, holders: FileHolders, *, index_s: int) -> None:
        """`index_s`: how far back a user's list of tasks reaches."""
        self._redis = redis
        self._scripts = scripts
        self._holders = holders
        self._index_s = index_s
        self.keys: Final = keys

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
        await self._holders.hold(task)
        reply = await self._scripts.run(
            lua.CREATE,
            [
                self.keys.task(task.id),
                self.keys.input(task.id),
                self.keys.index(task.user),
                self.keys.due,
                self.keys.events(task.id),
                self.keys.user_events(task.user),
                self.keys.idempotency(task.user, key) if key is not None else "",
                self.keys.join(task.user, body_hash),
            ],
            [
                task.id,
                task.created_at,
                task.created_at + (0 if task.is_final else FIRST_LOOK_S),
                json.dumps(job_input),
                body_hash,
                KEY_LASTS_S,
                JOIN_LASTS_S,
                self.keys.channel,
                quoted_user(task.user),
                first_event,
                json.dumps(task.public()),
                self._index_s,
                INDEX_KEPT,
                *flat(task.to_hash()),
            ],
        )
        return Known(reply[1], reply[2]) if reply[0] == "known" else None

    async def known_by_key(self, user: str, key: str) -> Known | None:
        found = await self._redis.hmget(self.keys.idempotency(user, key), ["task", "body"])
        task_id, body = cast(list[str | None], found)
        return Known(task_id, body or "") if task_id is not None else None

    async def known_by_body(self, user: str, body_hash: str) -> str | None:
        """The newest task that this user made by this very body within the last ten minutes."""
        return cast(str | None, await self._redis.get(self.keys.join(user, body_hash)))

    async def discard(self, task: Task, *, body_hash: str, key: str | None) -> None:
        """A task that was made by mistake was never there."""
        keys = [
            self.keys.task(task.id),
            self.keys.input(task.id),
            self.keys.events(task.id),
            self.keys.due,
            self.keys.index(task.user),
            self.keys.join(task.user, body_hash),
            *([self.keys.idempotency(task.user, key)] if key is not None else []),
        ]
        await self._scripts.run(lua.DISCARD, keys, [task.id])
