"""What a worker's or the queue's word on a job means for its task: progress, or how it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from flux_engine.errors import FluxError
from flux_engine.gateway.task import COUNTS, Task, TaskError
from flux_engine.gateway.tasks.ledger.news import Advance, Ending
from flux_engine.gateway.tasks.results import Adopted, files_json
from flux_engine.queues.job_queue import Report
from flux_engine.results.entry import CacheEntry
from flux_engine.results.result import withheld_of

MOST: Final = 1e9


def news_of(update: Mapping[str, Any]) -> Advance | None:
    """Progress as a worker sends it; None for what is no progress."""
    progress, seq, eta, preview = (update.get(name) for name in ("progress", "seq", "eta_seconds", "preview"))
    if not _is_number(progress) or not isinstance(seq, int):
        return None
    counts = {name: value for name in COUNTS if isinstance(value := update.get(name), int)}
    stage = update.get("stage")
    return Advance(
        stage=stage if isinstance(stage, str) else None,
        progress=min(max(float(progress), 0.0), 1.0),
        seq=seq,
        eta_seconds=float(eta) if _is_number(eta) else None,
        counts=counts,
        preview=preview if isinstance(preview, str) else None,
    )


def completed(task: Task, adopted: Adopted) -> Ending:
    """The end of a task whose result is in the store."""
    result = dict(adopted.result)
    usage = result.get("usage")
    used = usage.get("work") if isinstance(usage, dict) else None
    cached = bool(result.get("cached", False))
    return Ending(
        status="completed",
        result=result,
        files=adopted.as_json(),
        work_used=float(used) if isinstance(used, int | float) else 0.0 if cached else task.work,
        cached=cached,
        warnings=tuple(str(warning) for warning in result.pop("warnings", ())),
    )


def found_again(task: Task, entry: CacheEntry) -> Ending:
    """The end of a task that the queue has lost and whose files are in the store all the same."""
    return Ending(
        status="completed",
        result={
            "seed": task.seed,
            "model": {"id": task.model},
            "parameters": dict(task.parameters or {}),
            "timings": {},
            **told_by(entry),
        },
        files=files_json(entry.files, entry.thumbnail),
        work_used=task.work,
        warnings=entry.warnings,
    )


def told_by(entry: CacheEntry) -> dict[str, Any]:
    """What a result says of a stored one beside its files."""
    said: dict[str, Any] = {}
    if entry.enhanced_prompt is not None:
        said["enhanced_prompt"] = entry.enhanced_prompt
    if entry.withheld:
        said["withheld"] = list(withheld_of(entry))
    return said


def refused(error: FluxError) -> Ending:
    """The end of a task whose result is none."""
    said = TaskError(code=error.code, message=error.message, retryable=error.retryable, field=error.field)
    return Ending(status="failed", error=said)


def failed(report: Report) -> Ending:
    """The worker's own error, or what the platform did."""
    if report.state == "timed_out":
        message = "the platform ended this task after its time limit; ask for less, or raise `deadline_seconds`"
        return Ending(status="failed", error=TaskError(code="internal", message=message, retryable=False))
    try:
        held = json.loads(report.error or "")
        error = TaskError(
            code=str(held["code"]),
            message=str(held["message"]),
            retryable=bool(held.get("retryable", False)),
            field=held.get("field"),
        )
    except (ValueError, KeyError, TypeError):
        error = TaskError(code="internal", message="the worker failed; send the task again", retryable=True)
    return Ending(status="failed", error=error)


def lost(task: Task) -> Ending:
    message = f"the queue lost this task {task.attempt} times; send it again"
    return Ending(status="failed", error=TaskError(code="internal", message=message, retryable=True))


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether the ledger can hold it: JSON as Python reads it has NaN and integers beyond every float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
