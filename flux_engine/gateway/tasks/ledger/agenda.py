"""Which task to look at next, and who hands it to the queue: one set and one lease for all replicas.

if await agenda.begin_submit(task_id): ...          nobody else does for half a minute
became = await agenda.set_ticket(task_id, ticket, look_at=...)
for due in await agenda.claim_due(...): ...         nobody else looks for ten seconds
    await agenda.look_again(due.task_id, at, leased_until=due.leased_until)
"""

from __future__ import annotations

import time
from typing import Final, Literal, NamedTuple

from redis.asyncio import Redis

from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.ledger import lua
from flux_engine.gateway.tasks.ledger.keys import LedgerKeys
from flux_engine.gateway.tasks.ledger.scripts import Scripts

LEASE_S: Final = 10.0  # of a look at a task
SUBMIT_LEASE_S: Final = 30.0


class Due(NamedTuple):
    """A task to look at, which nobody else does until the lease ends."""

    task_id: str
    leased_until: float


class Agenda:
    """The ledger's; every method may raise RedisError, and may be repeated."""

    def __init__(self, redis: Redis, scripts: Scripts, keys: LedgerKeys) -> None:
        self._redis = redis
        self._scripts = scripts
        self.keys: Final = keys

    async def begin_submit(self, task_id: str) -> bool:
        """Whether it is the caller's to submit; nobody else does for half a minute."""
        return bool(await self._scripts.run(lua.BEGIN_SUBMIT, [self.keys.task(task_id)], [time.time(), SUBMIT_LEASE_S]))

    async def end_submit(self, task_id: str, *, look_at: float) -> None:
        """It was not submitted after all."""
        await self._redis.hdel(self.keys.task(task_id), "submitting_until")
        await self.look_at(task_id, look_at)

    async def set_ticket(self, task_id: str, ticket: str, *, look_at: float) -> Literal["kept", "cancel", "ended"]:
        """The queue has it under `ticket`; what became of it meanwhile."""
        arguments: list[str | float] = [task_id, ticket, time.time(), look_at]
        reply = int(await self._scripts.run(lua.TICKET, [self.keys.task(task_id), self.keys.due], arguments))
        return "kept" if reply == 1 else "cancel" if reply == 2 else "ended"

    async def lose_ticket(self, task: Task) -> bool:
        """The queue knows nothing of it any more."""
        arguments: list[str | float] = [task.id, task.ticket or "", time.time()]
        return bool(await self._scripts.run(lua.LOSE_TICKET, [self.keys.task(task.id), self.keys.due], arguments))

    async def claim_due(self, *, at_most: int, rate: float, burst: float) -> list[Due]:
        """The tasks to look at now, for this replica alone for ten seconds."""
        now = time.time()
        arguments = [now, LEASE_S, at_most, rate, burst]
        found = await self._scripts.run(lua.CLAIM, [self.keys.due, self.keys.looks], arguments)
        return [Due(task_id, now + LEASE_S) for task_id in found]

    async def set_ended(self, task_id: str, *, look_at: float) -> None:
        """Its worker has done all it will do."""
        now = time.time()
        await self._scripts.run(lua.SET_ENDED, [self.keys.task(task_id), self.keys.due], [task_id, now, look_at])

    async def look_at(self, task_id: str, at: float) -> None:
        await self._look_at(task_id, at)

    async def look_by(self, task_id: str, at: float) -> None:
        """As `look_at`, where the next look would come later."""
        await self._look_at(task_id, at, mode="LT")

    async def look_again(self, task_id: str, at: float, *, leased_until: float) -> None:
        """As `look_at`, after a look under that lease: a nearer one that was asked for meanwhile stays."""
        await self._look_at(task_id, at, leased_until=leased_until)

    async def wake_all(self, at: float) -> None:
        """Look by `at` at every task that nobody looks at now."""
        await self._scripts.run(lua.WAKE_ALL, [self.keys.due], [time.time() + LEASE_S, at])

    async def _look_at(self, task_id: str, at: float, *, mode: Literal["", "LT"] = "", leased_until: float = 0) -> None:
        arguments: list[str | float] = [task_id, at, mode, leased_until]
        await self._scripts.run(lua.LOOK_AT, [self.keys.due, self.keys.task(task_id)], arguments)
