"""Work counted in this process, as work.py does in Redis, while Redis is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flux_engine.gateway.limits.policy import MILLI, Policy, Standing
from flux_engine.gateway.limits.work import KEEP_S, Outcome


@dataclass(slots=True)
class _Open:
    user: str
    amount: int
    at_ms: int


@dataclass(slots=True)
class _Used:
    """What one user has used, in one window, by slot."""

    policy: Policy
    by_slot: dict[int, int] = field(default_factory=dict)

    def ends_ms(self, slot: int) -> int:
        return (slot + self.policy.slots + 1) * self.policy.slot_ms

    def forget(self, now_ms: int) -> None:
        self.by_slot = {slot: used for slot, used in self.by_slot.items() if self.ends_ms(slot) > now_ms and used}

    def wait_ms(self, amount: int, now_ms: int) -> int:
        if amount > self.policy.quota * MILLI:
            return -1
        over = sum(self.by_slot.values()) + amount - self.policy.quota * MILLI
        for slot in sorted(self.by_slot):
            if over <= 0:
                break
            over -= self.by_slot[slot]
            if over <= 0:
                return self.ends_ms(slot) - now_ms
        return 0

    def add(self, at_ms: int, amount: int, now_ms: int) -> None:
        slot = at_ms // self.policy.slot_ms
        if self.ends_ms(slot) > now_ms:
            self.by_slot[slot] = self.by_slot.get(slot, 0) + amount

    def standing(self, now_ms: int) -> Standing:
        left = self.policy.quota * MILLI - sum(self.by_slot.values())
        reset_ms = self.ends_ms(min(self.by_slot)) - now_ms if self.by_slot else 0
        return Standing(self.policy, left / MILLI, reset_ms / 1000)


class MemoryWork:
    """WorkWindows of this process alone, while Redis is away."""

    def __init__(self, policies: Sequence[Policy], *, clock: Callable[[], float] = time.time) -> None:
        self._policies = tuple(policies)
        self._clock = clock
        self._used: dict[str, tuple[_Used, ...]] = {}
        self._open: dict[str, _Open] = {}

    async def reserve(self, user: str, task_id: str, amount: int) -> Outcome:
        now_ms = round(self._clock() * 1000)
        self._forget(now_ms)
        windows = self._used.setdefault(user, tuple(_Used(policy) for policy in self._policies))
        waits_ms = [window.wait_ms(amount, now_ms) for window in windows]
        is_known, fits = task_id in self._open, not any(waits_ms)
        if fits and not is_known:
            self._open[task_id] = _Open(user, amount, now_ms)
            for window in windows:
                window.add(now_ms, amount, now_ms)
        waits = tuple(wait if wait < 0 else wait / 1000 for wait in waits_ms)
        return Outcome(fits or is_known, waits, tuple(window.standing(now_ms) for window in windows))

    async def settle(self, task_id: str, amount: int, *, user: str, at: float) -> bool:
        return self._close(task_id, amount)

    async def give_back(self, task_id: str) -> bool:
        return self._close(task_id, 0)

    def _close(self, task_id: str, amount: int) -> bool:
        held = self._open.pop(task_id, None)
        if held is None:
            return False
        now_ms = round(self._clock() * 1000)
        for window in self._used.get(held.user, ()):
            window.add(held.at_ms, amount - held.amount, now_ms)
        return True

    async def standing(self, user: str) -> tuple[Standing, ...]:
        now_ms = round(self._clock() * 1000)
        self._forget(now_ms)
        fresh = tuple(_Used(policy) for policy in self._policies)
        return tuple(window.standing(now_ms) for window in self._used.get(user, fresh))

    def _forget(self, now_ms: int) -> None:
        """Let go of users whose windows are empty, and of reservations that no task can have any more."""
        for user in list(self._used):
            for window in self._used[user]:
                window.forget(now_ms)
            if not any(window.by_slot for window in self._used[user]):
                del self._used[user]
        self._open = {name: held for name, held in self._open.items() if now_ms - held.at_ms < KEEP_S * 1000}
