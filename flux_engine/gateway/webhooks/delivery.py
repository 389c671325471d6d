"""One delivery: a body for one address, and the attempts to bring it there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from flux_engine.gateway.task import utc
from flux_engine.net.post import Answer

RETRY_AFTER_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400)  # 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h
GONE: Final = 410

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. `status` is the receiver's; without one, `error` says why."""

    at: float
    status: int | None
    error: str
    ms: int

    def to_json(self) -> dict[str, Any]:
        said = {"at": utc(self.at), "status": self.status, "error": self.error or None, "ms": self.ms}
        return {name: value for name, value in said.items() if value is not None}


class Place(NamedTuple):
    """Where a delivery stands in its user's list, in which several may be of one moment."""

    created_at: float
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """`tries` counts the attempts since it was made or asked for again, which it was `asked` times; `attempts` are all
    that the log keeps."""

    id: str
    user: str
    task_id: str
    event: str
    url: str
    body: bytes
    created_at: float
    state: State = "pending"
    tries: int = 0
    next_at: float | None = None
    attempts: Sequence[Mapping[str, Any]] = ()
    asked: int = 0

    @property
    def place(self) -> Place:
        return Place(self.created_at, self.id)

    def public(self) -> dict[str, Any]:
        """What its user reads of it."""
        said = {
            "id": self.id,
            "task_id": self.task_id,
            "event": self.event,
            "url": self.url,
            "state": self.state,
            "created_at": utc(self.created_at),
            "next_attempt_at": utc(self.next_at) if self.state == "pending" else None,
            "attempts": list(self.attempts),
        }
        return {name: value for name, value in said.items() if value is not None}


def delivery_id(task_id: str, status: str) -> str:
    """The same for the same change, whichever replica sees it first."""
    return f"msg_{hashlib.sha256(f'{task_id} {status}'.encode()).hexdigest()[:32]}"


def body_of(event: str, at: float, data: Mapping[str, Any]) -> bytes:
    """The body that is signed and sent, byte for byte the same at every attempt."""
    said = {"type": event, "timestamp": utc(at), "data": data}
    return json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def after(answer: Answer, tries: int) -> tuple[State, int]:
    """What becomes of a delivery after its `tries`th attempt, and in how many seconds the next one is due."""
    if answer.status is not None and 200 <= answer.status < 300:
        return "delivered", 0
    if answer.status == GONE or tries > len(RETRY_AFTER_S):
        return "failed", 0
    return "pending", RETRY_AFTER_S[tries - 1]
