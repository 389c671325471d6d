"""One job as the platform sees it: what was sent, where it stands, and everything that happened to it.

A `Job` is frozen; the queue replaces it at every change. Times are seconds of whatever clock the queue is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

JsonObject = Mapping[str, object]

EventKind = Literal[
    "queued",
    "taken",
    "progress",
    "part",
    "result",
    "oversized",  # a result or part over the limit: the worker got a 400
    "lost",  # the lease ran out: the worker died, was frozen or stopped its heartbeats
    "cancelled",
    "timed_out",
    "late_result",  # the job was already finished; the platform ignores it
    "late_progress",  # after the result: the platform believes it, and shows IN_PROGRESS again
]


class Status(StrEnum):
    """The states that `/status` shows."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_final(self) -> bool:
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the platform holds an endpoint to. The sizes are RunPod's, counted in decimal megabytes to be on the safe
    side; how long RunPod waits for a silent worker is not documented."""

    execution_timeout_s: float = 600
    ttl_s: float = 86_400
    lease_s: float = 30
    run_retention_s: float = 1_800
    runsync_retention_s: float = 60
    run_max_bytes: int = 10_000_000
    runsync_max_bytes: int = 20_000_000
    part_max_bytes: int = 1_000_000

    def max_bytes(self, *, is_sync: bool) -> int:
        """Bytes of a request or a result."""
        return self.runsync_max_bytes if is_sync else self.run_max_bytes

    def retention_s(self, *, is_sync: bool) -> float:
        """How long a finished job can be asked for."""
        return self.runsync_retention_s if is_sync else self.run_retention_s


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job. `detail` is the progress that was posted, else None."""

    at: float
    kind: EventKind
    worker: str | None = None
    detail: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and its history. `payload` is what the worker gets beside the id: `input`, `webhook`, `s3Config`, `policy`.

    `result` holds the keys `output` and `error` as far as `/status` shows them; progress stands under `output` too.
    """

    id: str
    payload: JsonObject
    is_sync: bool
    submitted_at: float
    execution_timeout_s: float
    ttl_s: float
    status: Status = Status.IN_QUEUE
    worker: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    lease_until: float = 0
    attempts: int = 0
    result: JsonObject = field(default_factory=dict)
    parts: tuple[object, ...] = ()
    parts_read: int = 0
    events: tuple[Event, ...] = ()

    def with_event(self, kind: EventKind, at: float, worker: str | None = None, detail: object = None) -> Job:
        return replace(self, events=(*self.events, Event(at, kind, worker, detail)))

    def events_of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def to_worker(self) -> dict[str, object]:
        """What `job-take` answers."""
        return {"id": self.id, **self.payload}

    def to_client(self, now: float) -> dict[str, object]:
        """What `/status` answers. `delayTime` and `executionTime` are milliseconds."""
        body: dict[str, object] = {"id": self.id, "status": str(self.status)}
        if self.started_at is not None:
            body["delayTime"] = round((self.started_at - self.submitted_at) * 1000)
            until = now if self.finished_at is None else self.finished_at
            body["executionTime"] = round((until - self.started_at) * 1000)
        if self.worker is not None:
            body["workerId"] = self.worker
        if self.attempts > 1:
            body["retries"] = self.attempts - 1
        return body | dict(self.result)
