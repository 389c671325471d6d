"""How much a user may ask for: requests a minute, work a minute and a day.

    headers = await limits.check_request(user)                       # TooMany
    reservation = await limits.reserve(user, task_id, work)          # TooMany; once a task
    await limits.settle(task_id, work_used, user=..., at=...)        # or: await limits.give_back(task_id)

Redis counts for all replicas. While it is away each replica counts by itself, in memory: limits are looser then, by the
number of replicas, and never gone. Whoever keeps the tasks settles each of them once Redis is back, and asks now and
then which reservations were left open (`left_open`) by a process that ended in between.
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
from flux_engine.gateway.limits.work import Outcome, RedisWork
from flux_engine.gateway.seams import Reservation

MINUTE_S: Final = 60
DAY_S: Final = 86_400
LEFT_OPEN_S: Final = 30.0  # longer than a request that makes a task takes
AT_ONCE: Final = 200


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
        except CacheAway:
            outcome = await self._alone.reserve(user, task_id, amount)
        if not outcome.is_reserved:
            raise _refusal(outcome, work)
        return Reservation(task_id, amount / MILLI, headers_of(outcome.standings))

    async def settle(self, task_id: str, work_used: float, *, user: str, at: float) -> None:
        """Charge a task, made at `at`, for what it used, once, whatever was reserved. Raises CacheAway: repeat it."""
        amount = _thousandths(work_used)
        await self._alone.settle(task_id, amount, user=user, at=at)
        await self._shared.settle(task_id, amount, user=user, at=at)

    async def give_back(self, task_id: str) -> None:
        """Take back the whole reservation, unless it was settled before. Raises CacheAway: repeat it."""
        await self._alone.give_back(task_id)
        await self._shared.give_back(task_id)

    async def left_open(self) -> list[str]:
        """Tasks that reserved work a while ago and have neither settled it nor given it back. Raises CacheAway."""
        return await self._shared.left_open(for_s=LEFT_OPEN_S, at_most=AT_ONCE)

    async def usage(self, user: str) -> tuple[Standing, ...]:
        """What is left of the user's work, window by window."""
        try:
            return await self._shared.standing(user)
        except CacheAway:
            return await self._alone.standing(user)

    async def close(self) -> None:
        """Let go of what is kept in memory."""
        await self._requests.close()


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
