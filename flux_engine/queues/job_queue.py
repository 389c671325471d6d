"""JobQueue: hands a job to whichever worker is free, and says how far it is.

    ticket = await queue.submit(job)
    report = await queue.status(ticket)      # Report(state="running", ...)
    await queue.cancel(ticket)

A queue may lose a job: then its report is `unknown`, and whoever keeps the ledger submits it again. Every call raises
QueueAway where the queue does not answer or asks to slow down, and QueueRefused where it never will.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from flux_engine.job.parse import GATEWAY_FIELD

State = Literal["queued", "running", "completed", "failed", "cancelled", "timed_out", "unknown"]


class QueueAway(Exception):
    """No answer, an error of the queue's own, or too many requests; try again after `retry_after_s`."""

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s: Final = retry_after_s


class QueueRefused(Exception):
    """The queue does not take this: a wrong key, an unknown endpoint, a job that is too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A job on its way to a worker. `id` stays the same however often it is submitted."""

    id: str
    input: Mapping[str, Any]
    model: str | None = None  # the model's own name, where the client named one in whatever way
    request_id: str = ""
    traceparent: str = ""
    webhook: str | None = None  # the queue posts here when the job has ended
    timeout_s: float | None = None  # how long a worker may take
    priority: Literal["normal", "low"] = "normal"

    def wire_input(self) -> dict[str, Any]:
        """`input` as the worker gets it: with the id that it works under, and what goes into its log."""
        envelope = {"task_id": self.id, "request_id": self.request_id, "traceparent": self.traceparent}
        return {**self.input, GATEWAY_FIELD: {name: value for name, value in envelope.items() if value}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the queue says of a job. `output` is the result once it is completed; `error` the worker's text."""

    state: State
    progress: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHealth:
    """Workers and jobs by state, as far as the queue counts them."""

    workers: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Calls a second that the queue takes, over all replicas, with how many at once."""

    submit: float
    status: float
    cancel: float
    shows_lost_workers: bool = False  # by `status`, within seconds: it is worth asking often


class JobQueue(Protocol):
    """See the module. Two kinds: RunPod's (runpod.py), and Celery on a broker of one's own."""

    @property
    def name(self) -> str: ...

    @property
    def rates(self) -> Rates: ...

    async def submit(self, job: QueuedJob) -> str:
        """Hand the job over; returns the queue's own id for it. One whose answer was lost may run twice."""
        ...

    async def status(self, ticket: str) -> Report: ...

    async def cancel(self, ticket: str) -> Report:
        """Take the job back, also from the worker that runs it; what is finished stays as it is."""
        ...

    async def health(self) -> QueueHealth: ...

    async def close(self) -> None: ...
