"""`POST /generate-image` and `/generate-video`: a job's input becomes a task."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from flux_engine.gateway.limits.policy import merged
from flux_engine.gateway.routes.answer import limit_headers, status_body
from flux_engine.gateway.routes.document import (
    IDEMPOTENCY_KEY,
    PREFER,
    TASK,
    answer,
    header_parameters,
    job_body,
    problems,
)
from flux_engine.gateway.routes.request import (
    base_url,
    caller,
    gateway_of,
    idempotency_key,
    is_repeat,
    json_body,
    request_id,
    split_extras,
    traceparent,
    unheeded,
    wished_wait,
)
from flux_engine.gateway.task import Kind
from flux_engine.gateway.tasks.wanted import Accepted, Wanted

router: Final = APIRouter(tags=["create"])
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: answer("The finished task: it was in the cache, or was waited for", TASK),
    202: answer("Accepted", TASK),
    **problems(400, 410, 413, 415, 422, 502),
}
HEADERS: Final = header_parameters(IDEMPOTENCY_KEY, PREFER)


@router.post("/generate-image", status_code=202, responses=ANSWERS, openapi_extra=job_body("image") | HEADERS)
async def generate_image(request: Request) -> JSONResponse:
    """Make pictures. Answers 202 with where to ask, or 200 with the finished task where the cache has it."""
    return await _generate(request, "image")


@router.post("/generate-video", status_code=202, responses=ANSWERS, openapi_extra=job_body("video") | HEADERS)
async def generate_video(request: Request) -> JSONResponse:
    """Make a video. As `/generate-image`."""
    return await _generate(request, "video")


async def _generate(request: Request, kind: Kind) -> JSONResponse:
    principal = await caller(request, "generate")
    body, extras = split_extras(request, await json_body(request))
    wanted = Wanted(
        principal=principal,
        body=body,
        kind=kind,
        extras=extras,
        key=idempotency_key(request),
        is_repeat=is_repeat(request),
        route=kind,
        request_id=request_id(request),
        traceparent=traceparent(request),
        warnings=unheeded(body),
    )
    return await created(request, await gateway_of(request).intake.accept(wanted))


async def created(request: Request, accepted: Accepted) -> JSONResponse:
    """202 with where to ask; 200 with the finished task, after `Prefer: wait` where that was sent."""
    task = accepted.task
    said = merged(limit_headers(request), accepted.headers)
    wait = wished_wait(request)
    if wait is not None:
        if not task.is_final:
            task = await gateway_of(request).wait_until_final(task, seconds=wait)
        said["Preference-Applied"] = f"wait={wait}"
    if accepted.is_replayed:
        said["Idempotency-Replayed"] = "true"
    body: dict[str, Any] = await status_body(request, task)
    if not task.is_final:
        body.setdefault("position", 0)
        body.setdefault("eta_seconds", None)
    said["Location"] = f"{base_url(request)}/task/{task.id}/status"
    return JSONResponse(body, status_code=200 if task.is_final else 202, headers=said)
