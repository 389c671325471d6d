"""What the ledger is told of a task, and what its watchers hear of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flux_engine.gateway.task import Kind, Status, Task, TaskError


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


def event_of(task: Task) -> dict[str, Any]:
    """What a `status` event says: that which changes while a task is under way."""
    said = task.public()
    names = ("task_id", "status", "stage", "progress", "eta_seconds", "waiting_for", *task.counts)
    return {name: said[name] for name in names if name in said}


def new_task(
    task_id: str, *, user: str, kind: Kind, status: Status = "queued", now: float | None = None, **facts: Any
) -> Task:
    """A task that begins now."""
    return Task(id=task_id, user=user, kind=kind, status=status, created_at=now or time.time(), **facts)
