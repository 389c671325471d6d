"""What the gateway's rooms promise one another.

    principal = await security.authenticate(request.headers, address=...)     who
    await limits.check_request(principal.user)                                how often
    await limits.reserve(principal.user, task_id, work)                       how much
    await line.enter(principal.user, task_id, priority)                       in what order
    turn = await line.next()                                                  -> the queue
    await limits.settle(task_id, work_used, ...); await line.leave(user, task_id)  at the end, in any way
    await webhooks.task_changed(task)

Every call may be repeated with the same result, since a replica that dies between two of them is followed by another
that begins again with the first. None raises when Redis is away but where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from flux_engine.gateway.task import Task

Scope = Literal["generate", "read", "admin"]
Priority = Literal["normal", "low"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `key_id` is the API key's, also where a token of that key was sent; None for a foreign token."""

    user: str
    scopes: frozenset[str]
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Work set aside for one task. `headers` are RateLimit-Policy and RateLimit as they stand after it."""

    task_id: str
    work: float
    headers: Mapping[str, str] = field(default_factory=dict)


class Security(Protocol):
    """`SecurityManager` (security/)."""

    async def authenticate(self, headers: Mapping[str, str], *, address: str) -> Principal:
        """Whoever holds the key or token in `headers` (names in lower case). Raises Unauthorized and TooMany."""
        ...

    async def is_still_good(self, headers: Mapping[str, str]) -> bool:
        """Whether the key or token in `headers`, which was good, has not been revoked and has not expired."""
        ...

    def require(self, principal: Principal, scope: Scope) -> None:
        """Raises Forbidden where the scope is missing."""
        ...

    def sign_path(self, path: str, principal: Principal, *, seconds: int) -> str:
        """`path` with a signature in its query, good for GET by whoever holds it, for an <img> or a <video>."""
        ...

    async def verify_path(self, path: str, query: Mapping[str, str]) -> Principal:
        """Whoever `sign_path` signed this path for. Raises Unauthorized: expired, changed, or the key was revoked."""
        ...


class Limits(Protocol):
    """How much a user may ask for. With Redis away it counts in memory."""

    async def check_request(self, user: str) -> Mapping[str, str]:
        """Count one request; returns the RateLimit headers. Raises TooMany."""
        ...

    async def reserve(self, user: str, task_id: str, work: float) -> Reservation:
        """Take `work` from the user's windows, once a task. Raises TooMany, and then nothing was taken."""
        ...

    async def settle(self, task_id: str, work_used: float, *, user: str, at: float) -> None:
        """Charge a task, made at `at`, for what it used, once, whatever was reserved. Raises CacheAway."""
        ...

    async def give_back(self, task_id: str) -> None:
        """Take back the whole reservation: the task failed, was cancelled, or never was. Raises CacheAway."""
        ...

    async def left_open(self) -> list[str]:
        """Tasks that reserved work a while ago and have neither settled it nor given it back. Raises CacheAway."""
        ...


class Turn(NamedTuple):
    """A task whose turn has come. `is_first`: its user has no other in flight."""

    user: str
    task_id: str
    is_first: bool


class Line(Protocol):
    """Tasks that wait for their turn, each user's in order, the users served round robin, and those in flight.

    Low priority comes after every task of normal priority of all users.
    """

    async def enter(self, user: str, task_id: str, priority: Priority) -> None: ...

    async def next(self) -> Turn | None:
        """Whose turn it is, counted as in flight from now on; None while the bounds of tasks in flight, a user's and
        all together, allow none."""
        ...

    async def leave(self, user: str, task_id: str) -> None:
        """The task waits no longer and is no longer in flight."""
        ...

    async def position(self, task_id: str) -> int | None:
        """How many tasks are before it; None where it does not wait."""
        ...

    async def in_flight(self) -> int:
        """How many tasks are, of all users."""
        ...


class Webhooks(Protocol):
    """Tells clients. Returns at once; delivery is its own matter."""

    async def task_changed(self, task: Task) -> None:
        """`task` has reached a new status. Called again with the same one where a replica has died over it."""
        ...
