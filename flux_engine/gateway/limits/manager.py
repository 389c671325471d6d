"""How much a user may ask for: requests a minute, work a minute and a day.

    headers = await limits.check_request(user)                       # TooMany
    reservation = await limits.reserve(user, task_id, work)          # TooMany; once a task
    await limits.settle(task_id, work_used)                          # or: await limits.give_back(task_id)

Redis counts for all replicas. While it is away each replica counts by itself, in memory: limits are looser then, by the
number of replicas, and never gone. What could not be settled meanwhile is settled when Redis is back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flux_engine.cache.redis_link import CacheAway, RedisLink
from flux_engine.gateway.limits.memory import MemoryWork
from flux_engine.gateway.limits.policy import MILLI, Policy, Standing, headers_of, never, too_many
from flux_engine.gateway.limits.requests import RequestLimit
from flux_engine.gateway.limits.work import Outcome, RedisWork, State
from flux_engine.gateway.seams import Reservation

MINUTE_S: Final = 60
DAY_S: Final = 86_400
MAX_OWED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitTerms:
    """A user's quotas."""

    requests_per_minute: int = 6_000
    work_per_minute: int = 10_000
    work_per_day: int = 1_000_000


class LimitsManager:
    """`Limits` (seams.py)."""

    def __init__(
        self, link: RedisLink, terms: LimitTerms, *, root: str, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` stands for the server's, in seconds."""
        policies = (
            Policy(name="work-minute", quota=terms.work_per_minute, window_s=MINUTE_S),
            Policy(name="work-day", quota=terms.work_per_day, window_s=DAY_S, slots=48),
        )
        requests = Policy(name="requests", quota=terms.requests_per_minute, window_s=MINUTE_S, unit="requests")
        self._requests = RequestLimit(link, requests, root=root)
        self._shared = RedisWork(link, policies, root=root, clock=clock)
        self._alone = MemoryWork(policies, clock=clock or time.time)
        self._owed: dict[str, tuple[int, State]] = {}

    async def check_request(self, user: str) -> Mapping[str, str]:
        """Count one request; the RateLimit headers. Raises TooMany."""
        is_within, standing = await self._requests.hit(user)
        if not is_within:
            wait_s = max(standing.reset_s, 1.0)
            raise too_many("too many requests", [standing], [standing.policy.name], retry_after_s=wait_s)
        return headers_of([standing])

    async def reserve(self, user: str, task_id: str, work: float) -> Reservation:
        """Take `work` from the user's windows, once a task. Raises TooMany, and then nothing was taken."""
        amount = _thousandths(work)
        try:
            outcome = await self._shared.reserve(user, task_id, amount)
            await self._pay()
        except CacheAway:
            outcome = await self._alone.reserve(user, task_id, amount)
        if not outcome.is_reserved:
            raise _refusal(outcome, work)
        return Reservation(task_id, amount / MILLI, headers_of(outcome.standings))

    async def settle(self, task_id: str, work_used: float) -> None:
        """Replace the reservation by what was used, once: the rest goes back, and what is over is taken."""
        await self._close(task_id, _thousandths(work_used), "settled")

    async def give_back(self, task_id: str) -> None:
        """Take back the whole reservation, unless it was settled before."""
        await self._close(task_id, 0, "returned")

    async def usage(self, user: str) -> tuple[Standing, ...]:
        """What is left of the user's work, window by window."""
        try:
            return await self._shared.standing(user)
        except CacheAway:
            return await self._alone.standing(user)

    async def close(self) -> None:
        """Let go of what is kept in memory."""
        await self._requests.close()

    async def _close(self, task_id: str, amount: int, state: State) -> None:
        if await self._alone.close(task_id, amount, state):
            return
        try:
            await self._shared.close(task_id, amount, state)
            await self._pay()
        except CacheAway:
            if len(self._owed) < MAX_OWED:
                self._owed.setdefault(task_id, (amount, state))

    async def _pay(self) -> None:
        """Settle what could not be settled before. Raises CacheAway."""
        while self._owed:
            task_id, (amount, state) = next(iter(self._owed.items()))
            await self._shared.close(task_id, amount, state)
            self._owed.pop(task_id, None)


def _thousandths(work: float) -> int:
    """Raises ValueError for what is no amount."""
    if not math.isfinite(work) or work < 0:
        raise ValueError("work is a number from 0 on")
    return math.ceil(round(work * MILLI, 6))


def _refusal(outcome: Outcome, work: float) -> Exception:
    """TooMany, by the windows that have no room for `work`."""
    pairs = list(zip(outcome.standings, outcome.waits_s, strict=True))
    endless = [standing.policy for standing, wait_s in pairs if wait_s < 0]
    if endless:
        bound = min(endless, key=lambda policy: policy.quota)
        return never(
            f"this asks for {work:g} units of work, and at most {bound.quota} are allowed in {bound.window_s} s:"
            " ask for fewer steps, pictures, frames or pixels",
            outcome.standings,
            [policy.name for policy in endless],
        )
    violated = [standing.policy.name for standing, wait_s in pairs if wait_s > 0]
    left = min(standing.remaining for standing, wait_s in pairs if wait_s > 0)
    detail = f"this asks for {work:g} units of work, and {max(0.0, left):g} are left ({', '.join(violated)})"
    return too_many(detail, outcome.standings, violated, retry_after_s=max(wait_s for _, wait_s in pairs))
