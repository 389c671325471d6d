"""One request for a task, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flux_engine.gateway.seams import Principal
from flux_engine.gateway.task import Kind, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a client wishes of the gateway itself."""

    webhook: Mapping[str, Any] | None = None
    priority: Literal["normal", "low"] = "normal"
    deadline_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One request for a task. `body` is a job's input; `kind` None: as its fields say."""

    principal: Principal
    body: Mapping[str, Any] = field(repr=False)
    kind: Kind | None = None
    extras: Extras = field(default_factory=Extras)
    key: str | None = None  # Idempotency-Key
    is_repeat: bool = False  # the openai client says so itself
    route: str = ""
    request_id: str = ""
    traceparent: str = ""
    again_of: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """`headers` are those of the limits."""

    task: Task
    is_replayed: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
