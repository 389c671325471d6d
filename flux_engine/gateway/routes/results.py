"""The files of a finished task, through the gateway: with an ETag, in ranges, for ever the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from flux_engine.errors import StorageFailed
from flux_engine.gateway.problems import Gone, NotFound, NotReady, RangeRefused
from flux_engine.gateway.routes.answer import limit_headers, problem_of, unreadable
from flux_engine.gateway.routes.document import problems
from flux_engine.gateway.routes.request import MAX_WAIT_S, caller, gateway_of, own_task
from flux_engine.gateway.routes.tasks import TaskId
from flux_engine.gateway.seams import Principal
from flux_engine.gateway.security.signed_paths import SIGNATURE
from flux_engine.gateway.task import Task
from flux_engine.job.formats import CONTENT_TYPES

router: Final = APIRouter(tags=["results"])
RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
MAX_AGE_S: Final = 31_536_000
NOT_READY_AGAIN_S: Final = 2
FILE: Final[dict[str, Any]] = {
    kind: {"schema": {"type": "string", "format": "binary"}} for kind in sorted(set(CONTENT_TYPES.values()))
}


@router.get(
    "/task/{task_id}/result",
    response_class=Response,
    responses={
        200: {"description": "The file", "content": FILE},
        206: {"description": "A part of it", "content": FILE},
        304: {"description": "The client has it"},
        **problems(404, 409, 410, 416, 422, 502),
    },
)
async def result(
    request: Request,
    task_id: TaskId,
    index: Annotated[int, Query(ge=0, le=16, description="Which file; a video's thumbnail is 1")] = 0,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end")] = 0,
) -> Response:
    """The file that a task made."""
    principal = await _reader(request)
    task = await own_task(request, task_id, principal)
    if not task.is_final and wait > 0:
        task = await gateway_of(request).wait_until_final(task, seconds=wait)
    file = _file(task, index)
    etag = f'"{file["sha256"]}"'
    headers = limit_headers(request) | {
        "ETag": etag,
        "Cache-Control": f"private, max-age={MAX_AGE_S}, immutable",
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{_name(task, file, index)}"',
        "X-Content-Type-Options": "nosniff",
    }
    if _is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    try:
        data = await gateway_of(request).results.read(file)
    except StorageFailed as error:
        raise unreadable() from error
    if data is None:
        raise Gone("the file of this task is gone; make it again by POST .../again", code="expired")
    part = _part(request.headers, etag, len(data))
    if part is None:
        return Response(data, media_type=file["content_type"], headers=headers)
    headers["Content-Range"] = f"bytes {part.first}-{part.last}/{len(data)}"
    cut = await asyncio.to_thread(lambda: data[part.first : part.last + 1])
    return Response(cut, status_code=206, media_type=file["content_type"], headers=headers)


async def _reader(request: Request) -> Principal:
    """Whoever asks, by credentials or by a signed path."""
    if SIGNATURE in request.query_params and "authorization" not in request.headers:
        principal = await gateway_of(request).security.verify_path(request.url.path, request.query_params)
        request.state.limit_headers = dict(await gateway_of(request).limits.check_request(principal.user))
        return principal
    return await caller(request, "read")


def _file(task: Task, index: int) -> Mapping[str, Any]:
    if not task.is_final:
        raise NotReady(
            f"this task is {task.status}; ask again, with `?wait=60`, or watch its events",
            retryable=True,
            headers={"Retry-After": str(NOT_READY_AGAIN_S)},
        )
    if task.status != "completed":
        raise problem_of(task)
    if task.is_purged:
        raise Gone("the files of this task were deleted", code="expired")
    if index >= len(task.files):
        count = len(task.files)
        raise NotFound(f"this task has {count} file{'s' if count > 1 else ''}; the first is `index` 0", field="index")
    return task.files[index]


def _name(task: Task, file: Mapping[str, Any], index: int) -> str:
    extension = str(file["key"]).rpartition(".")[2]
    return f"flux-{task.id[:8]}-{index}.{extension}"


def _is_known(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags


@dataclass(frozen=True, slots=True)
class _Part:
    first: int
    last: int


def _part(headers: Mapping[str, str], etag: str, size: int) -> _Part | None:
    """The one range that is asked for; None for the whole file: no range, several, or of another version."""
    condition = headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        return None
    match = RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    if match[1] == "":
        count = int(match[2])
        first, last = max(size - count, 0), size - 1
        if count == 0:
            raise _outside(size)
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
    if first >= size:
        raise _outside(size)
    return _Part(first, last) if first <= last else None


def _outside(size: int) -> RangeRefused:
    return RangeRefused(f"the file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
