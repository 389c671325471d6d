"""One task: what a user asked for, how far it is, and how it ended. A frozen value, as the ledger holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

Kind = Literal["image", "video"]
Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
WaitingFor = Literal["worker_starting", "busy", "throttled", "no_workers"]

FINAL: Final = ("completed", "failed", "cancelled")
COUNTS: Final = ("step", "total_steps", "frame", "total_frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why a task failed: a code of errors.py, and what to do."""

    code: str
    message: str
    retryable: bool = False
    field: str | None = None

    def to_json(self) -> dict[str, Any]:
        said = {"code": self.code, "message": self.message, "field": self.field, "retryable": self.retryable}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Times are seconds since 1970. `result` is what the worker said of the finished job, without its files' bytes;
    `files` describe those (results.entry.StoredFile as JSON, the thumbnail of a video last)."""

    id: str
    user: str
    kind: Kind
    status: Status
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    # what was asked for
    model: str = ""
    seed: int = 0
    work: float = 0.0
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] | None = None  # effective ones, without the bytes of pictures
    priority: Literal["normal", "low"] = "normal"
    deadline_at: float | None = None
    webhook: Mapping[str, Any] | None = None
    request_id: str = ""
    traceparent: str = ""
    key_id: str | None = None
    again_of: str | None = None
    fingerprint: str | None = None
    # how far it is
    ticket: str | None = None  # the queue's own id for it
    attempt: int = 0  # how often it was submitted
    submitted_at: float | None = None
    heard_at: float | None = None  # when its worker last said something of it through Redis
    ended_at: float | None = None  # when its worker said that it is done
    cancelling: bool = False
    orphaned_at: float | None = None  # the connection that waited for it is gone
    waiting_for: WaitingFor | None = None
    stage: str | None = None
    progress: float = 0.0
    seq: int = 0
    eta_seconds: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    # how it ended
    work_used: float | None = None
    cached: bool = False
    error: TaskError | None = None
    result: Mapping[str, Any] | None = None
    files: tuple[Mapping[str, Any], ...] = ()
    is_purge_wished: bool = False  # before its end
    is_purged: bool = False
    is_settled: bool = False  # what follows from the end has been done: limits, line, webhooks

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    def to_hash(self) -> dict[str, str]:
        """The fields of a Redis hash; those that are None or empty stay out of it."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: text for name, value in held.items() if (text := _written(value)) is not None}

    @classmethod
    def from_hash(cls, held: Mapping[str, str]) -> Task:
        """The task in a Redis hash. Raises ValueError or KeyError for what this version cannot have written."""
        read: dict[str, Any] = {}
        for f in fields(cls):
            if (text := held.get(f.name)) is not None:
                read[f.name] = _READ.get(f.name, str)(text)
        if read["status"] not in get_args(Status):
            raise ValueError("unknown status")
        return cls(**read)

    def public(self) -> dict[str, Any]:
        """What its user reads of it, but for URLs and its place in the line."""
        said: dict[str, Any] = {
            "task_id": self.id,
            "type": self.kind,
            "status": self.status,
            "cancelling": self.cancelling and not self.is_final,
            "created_at": utc(self.created_at),
            "started_at": utc(self.started_at),
            "finished_at": utc(self.finished_at),
            "stage": None if self.is_final else self.stage,
            "progress": 1.0 if self.status == "completed" else self.progress,
            "eta_seconds": None if self.is_final else self.eta_seconds,
            "waiting_for": None if self.is_final else self.waiting_for,
            "model": self.model or None,
            "seed": self.seed,
            "work": self.work,
            "work_used": self.work_used,
            "cached": self.cached,
            "warnings": list(self.warnings),
            "metadata": self.metadata,
            "parameters": self.parameters,
            "again_of": self.again_of,
            "error": self.error.to_json() if self.error is not None else None,
        }
        always = ("task_id", "status", "progress", "warnings", "cancelling")
        kept = {name: value for name, value in said.items() if value is not None or name in always}
        return kept | ({} if self.is_final else dict(self.counts))


def utc(moment: float | None) -> str | None:
    """`moment` as ISO 8601 in UTC, to the millisecond."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _written(value: object) -> str | None:
    if value is None or value in ((), {}):
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return value
    if isinstance(value, TaskError):
        value = value.to_json()
    return json.dumps(value, allow_nan=False)


def _error(text: str) -> TaskError:
    return TaskError(**json.loads(text))


def _tuple(text: str) -> tuple[Any, ...]:
    return tuple(json.loads(text))


def _flag(text: str) -> bool:
    return text == "1"


_READ: Final[dict[str, Any]] = {
    **dict.fromkeys(
        (
            "created_at",
            "started_at",
            "finished_at",
            "deadline_at",
            "submitted_at",
            "heard_at",
            "ended_at",
            "orphaned_at",
            "eta_seconds",
        ),
        float,
    ),
    **dict.fromkeys(("work", "work_used", "progress"), float),
    **dict.fromkeys(("seed", "attempt", "seq"), int),
    **dict.fromkeys(("cancelling", "cached", "is_purge_wished", "is_purged", "is_settled"), _flag),
    **dict.fromkeys(("metadata", "parameters", "webhook", "counts", "result"), json.loads),
    **dict.fromkeys(("warnings", "files"), _tuple),
    "error": _error,
}
