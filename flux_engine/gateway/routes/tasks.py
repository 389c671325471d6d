"""How tasks are: one, or all of the caller's; taking one back; making it once more."""

from __future__ import annotations

import base64
import binascii
import math
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse

from flux_engine.errors import StorageFailed
from flux_engine.gateway.problems import Refused, Unavailable
from flux_engine.gateway.routes.answer import begun, limit_headers, status_body
from flux_engine.gateway.routes.create import HEADERS, created
from flux_engine.gateway.routes.document import TASK, TASK_LIST, answer, json_request, problems
from flux_engine.gateway.routes.request import (
    caller,
    gateway_of,
    idempotency_key,
    is_repeat,
    json_body,
    own_task,
    request_id,
    split_extras,
    traceparent,
    unheeded,
)
from flux_engine.gateway.task import Kind, Status, Task
from flux_engine.gateway.tasks.wanted import Wanted

router: Final = APIRouter(tags=["tasks"])
TaskId = Annotated[str, Path(description="As it was answered when the task was made")]

MAX_PAGE: Final = 100
MAX_SCANNED: Final = 2_000
FOUND: Final[dict[int | str, dict[str, Any]]] = {200: answer("The task", TASK), **problems(404, 422)}


@router.get("/task/{task_id}/status", responses=FOUND)
@router.get("/tasks/{task_id}", responses=FOUND)
async def status(request: Request, task_id: TaskId) -> JSONResponse:
    """How far a task is."""
    principal = await caller(request, "read")
    task = await own_task(request, task_id, principal)
    headers = limit_headers(request) | {"Cache-Control": "no-store"}
    return JSONResponse(await status_body(request, task), headers=headers)


@router.get(
    "/tasks", responses={200: answer("A page of the caller's tasks, the newest first", TASK_LIST), **problems(422)}
)
async def tasks(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before")] = None,
    status: Annotated[Status | None, Query()] = None,
    kind: Annotated[Kind | None, Query(alias="type")] = None,
    created_after: Annotated[datetime | None, Query()] = None,
) -> JSONResponse:
    """The caller's own tasks, the newest first. A page may hold fewer than `limit`, or none, and have a `next`."""
    principal = await caller(request, "read")
    ledger = gateway_of(request).ledger
    after = _moment(created_after)
    before = _opened(cursor)
    found: list[Task] = []
    scanned, left_off = 0, None
    while len(found) <= limit and left_off is None:
        page = await ledger.newest(principal.user, before=before, count=limit + 1)
        known = {task.id: task for task in await ledger.many([task_id for task_id, _ in page])}
        for task_id, created_at in page:
            task = known.get(task_id)
            if created_at <= after or len(found) > limit:
                break
            if task is not None and status in (None, task.status) and kind in (None, task.kind):
                found.append(task)
        scanned += len(page)
        if len(page) <= limit or page[-1][1] <= after:
            break
        before = (page[-1][1], page[-1][0])
        left_off = before if scanned >= MAX_SCANNED else None
    shown = found[:limit]
    goes_on = (shown[-1].created_at, shown[-1].id) if len(found) > limit else left_off
    following = _cursor(*goes_on) if goes_on is not None else None
    bodies = [await status_body(request, task) for task in shown]
    return JSONResponse({"tasks": bodies, "next": following}, headers=limit_headers(request))


@router.delete(
    "/task/{task_id}",
    responses={
        200: answer("Removed from the queue; or it had ended, and nothing was undone", TASK),
        202: answer("A worker is being stopped", TASK),
        **problems(404, 409, 422, 502),
    },
)
async def delete(
    request: Request,
    task_id: TaskId,
    purge: Annotated[Literal["0", "1", "true", "false"], Query(description="Delete its files as well")] = "0",
) -> JSONResponse:
    """Take a task back; with `purge`, delete what is kept of it."""
    principal = await caller(request, "generate")
    gateway = gateway_of(request)
    task = await own_task(request, task_id, principal)
    with begun():
        if not task.is_final:
            task = await gateway.cancellation.cancel(task)
        if purge in ("1", "true"):
            await _purge(request, task)
            task = await gateway.ledger.get(task.id) or task
    return JSONResponse(
        await status_body(request, task), status_code=200 if task.is_final else 202, headers=limit_headers(request)
    )


@router.post(
    "/task/{task_id}/again",
    status_code=202,
    responses={
        200: answer("The finished task", TASK),
        202: answer("Accepted", TASK),
        **problems(400, 404, 410, 413, 415, 422, 502),
    },
    openapi_extra=json_request({"type": "object", "additionalProperties": True}, is_required=False) | HEADERS,
)
async def again(request: Request, task_id: TaskId) -> JSONResponse:
    """The same task once more, with the fields of the body in place of its own; `"seed": null` draws a new seed."""
    principal = await caller(request, "generate")
    gateway = gateway_of(request)
    task = await own_task(request, task_id, principal)
    overrides, extras = split_extras(request, await json_body(request, may_be_empty=True))
    wanted = Wanted(
        principal=principal,
        body=await gateway.intake.again(task, overrides),
        extras=extras,
        key=idempotency_key(request),
        is_repeat=is_repeat(request),
        route=f"again {task.id}",
        request_id=request_id(request),
        traceparent=traceparent(request),
        again_of=task.id,
        warnings=unheeded(overrides),
    )
    return await created(request, await gateway.intake.accept(wanted))


async def _purge(request: Request, task: Task) -> None:
    gateway = gateway_of(request)
    if not task.is_final:
        await gateway.ledger.purge_at_end(task)
        task = await gateway.ledger.get(task.id) or task
        if not task.is_final:
            return  # the sweep does it at the end; where that came in between, it is done here
    try:
        await gateway.endings.purge(task)
    except StorageFailed as error:
        raise Unavailable("the files could not be deleted now; send it again") from error


def _moment(moment: datetime | None) -> float:
    if moment is None:
        return -math.inf
    try:
        return moment.timestamp()
    except (OverflowError, ValueError, OSError):
        raise Refused("`created_after` lies outside of what a clock shows", field="created_after") from None


def _cursor(created_at: float, task_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at!r} {task_id}".encode()).decode().rstrip("=")


def _opened(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        moment, task_id = text.split(" ", 1)
        created_at = float(moment)
        if not math.isfinite(created_at):
            raise ValueError
    except (binascii.Error, ValueError):
        raise Refused("`cursor` must be the `next` of an earlier answer", field="cursor") from None
    return created_at, task_id
