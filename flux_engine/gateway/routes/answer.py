"""What clients read of a task: its public fields with URLs, its result, its place in the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.limits.policy import merged
from flux_engine.gateway.problems import MEDIA_TYPE, Gone, Problem, Refused, Unavailable
from flux_engine.gateway.routes.request import base_url, gateway_of, request_id
from flux_engine.gateway.task import Task, utc

BEGUN = (
    "Redis did not answer to the end, so this may have been done, or a part of it; send the request again, which does"
    " the rest"
)
FACTS = ("content_type", "width", "height", "seed", "sha256", "bytes", "fps", "num_frames", "duration")


def urls_of(task_id: str, base: str) -> dict[str, str]:
    return {
        "status_url": f"{base}/task/{task_id}/status",
        "result_url": f"{base}/task/{task_id}/result",
        "cancel_url": f"{base}/task/{task_id}",
        "events_url": f"{base}/task/{task_id}/events",
    }


def described(task: Task, base: str, *, keep_s: int) -> dict[str, Any]:
    """Everything that its user reads of it, without its place in the line."""
    said = task.public() | urls_of(task.id, base)
    if task.status == "completed":
        said["result"] = result_of(task, base)
        said["expires_at"] = utc((task.finished_at or task.created_at) + keep_s)
    return said


def result_of(task: Task, base: str) -> dict[str, Any]:
    """The contract's result, with the gateway's URLs in place of the worker's."""
    url = f"{base}/task/{task.id}/result"
    files = [file for file in task.files if not file.get("is_thumbnail")]
    said = [{"url": f"{url}?index={index}", **_facts(file)} for index, file in enumerate(files)]
    result: dict[str, Any] = {"video": said[0]} if task.kind == "video" and said else {"images": said}
    if len(files) < len(task.files):
        result["thumbnail"] = {"url": f"{url}?index={len(files)}"}
    rest = {name: value for name, value in (task.result or {}).items() if name not in ("expires_at", "metadata")}
    if isinstance(made_from := rest.get("parameters"), Mapping) and "response_format" in made_from:
        rest["parameters"] = {**made_from, "response_format": "url"}  # to the gateway they may have come inline
    result |= rest | {"cached": task.cached, "warnings": list(task.warnings)}
    if task.metadata is not None:
        result["metadata"] = dict(task.metadata)
    return result


async def status_body(request: Request, task: Task) -> dict[str, Any]:
    """`described`, and for a task that waits, how many are before it, where Redis tells."""
    gateway = gateway_of(request)
    said = described(task, base_url(request), keep_s=gateway.settings.task_ttl_seconds)
    if task.status == "queued":
        with suppress(CacheAway):
            position = await gateway.line.position(task.id)
            said["position"] = position or 0
            if position is not None and "waiting_for" not in said:
                said["waiting_for"] = "busy"
    return said


def problem_answer(request: Request, problem: Problem) -> JSONResponse:
    return JSONResponse(
        problem.body(request_id=request_id(request)),
        status_code=problem.status,
        headers=merged(limit_headers(request), problem.all_headers()),
        media_type=MEDIA_TYPE,
    )


def limit_headers(request: Request) -> dict[str, str]:
    return dict(getattr(request.state, "limit_headers", {}))


def snapshot_body(gateway: Gateway, task: Task, base: str) -> dict[str, Any]:
    return described(task, base, keep_s=gateway.settings.task_ttl_seconds)


def _facts(file: Mapping[str, Any]) -> dict[str, Any]:
    return {name: file[name] for name in FACTS if name in file}


def problem_of(task: Task) -> Problem:
    """What a failed or cancelled task answers in place of its result."""
    if task.status == "cancelled":
        return Gone("this task was cancelled", code="cancelled")
    if task.error is None:
        return Refused.described("internal", "this task failed", retryable=True)
    error = task.error
    return Refused.described(error.code, error.message, field=error.field, retryable=error.retryable)


def unreadable() -> Problem:
    """What is answered in place of a file while the store does not answer: it may be there all the same."""
    return Refused.described("storage_failed", "the file cannot be read now; ask for it again", retryable=True)


@contextmanager
def begun() -> Iterator[None]:
    """What is asked for in here and is the same when it is asked for again. Raises Unavailable where Redis stops to
    answer in between: then nobody may say that nothing was done."""
    try:
        yield
    except (RedisError, CacheAway) as error:
        raise Unavailable(BEGUN) from error
