"""Server-sent events: of one task until its end, or of all of the caller's tasks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.problems import NotFound, TooMany
from flux_engine.gateway.routes.answer import limit_headers, snapshot_body, urls_of
from flux_engine.gateway.routes.document import LAST_EVENT_ID, header_parameters, problems
from flux_engine.gateway.routes.request import NO_SUCH_TASK, base_url, caller, gateway_of, own_task
from flux_engine.gateway.routes.tasks import TaskId
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.events import ALL, Event, Watcher, is_stream_id, sse, stream_id
from flux_engine.gateway.tasks.ledger.ledger import ORPHANED

router: Final = APIRouter(tags=["events"])
COMMENT_EVERY_S: Final = 15.0
RETRY_MS: Final = 1000
RECENT: Final = 20
COMMENT: Final = b": still here\n\n"
EVENT: Final[dict[str, Any]] = {
    "description": "`data` is JSON: the fields that changed, or the whole task in a snapshot and at the end",
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["snapshot", "status", "preview", "completed", "failed", "cancelled"]},
        "data": {"type": "string"},
        "retry": {"type": ["integer", "string"]},
    },
}
STREAM: Final[dict[str, Any]] = {
    "description": "A stream of `snapshot`, `status`, `preview`, `completed`, `failed` and `cancelled` events",
    "content": {"text/event-stream": {"schema": EVENT}},
}
Once = Annotated[bool, Query(description="End after the snapshot")]


@router.get(
    "/task/{task_id}/events",
    response_class=StreamingResponse,
    responses={
        200: STREAM,
        204: {"description": "The end was seen already: do not connect again"},
        **problems(404, 422),
    },
    openapi_extra=header_parameters(LAST_EVENT_ID),
)
async def task_events(request: Request, task_id: TaskId, once: Once = False) -> Response:
    """Everything that happens to a task, from a snapshot to its end. `Last-Event-ID` goes on where a stream broke."""
    principal = await caller(request, "read")
    task = await own_task(request, task_id, principal)
    gateway = gateway_of(request)
    after = _last_event_id(request)
    if after is not None and task.is_final and not await gateway.hub.replay(task=task, after=after):
        return Response(status_code=204, headers=limit_headers(request))
    stream = _TaskStream(gateway, task, base=base_url(request), after=after, is_once=once)
    return _Streaming(request, stream.parts, user=task.user, task_id=task.id)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: STREAM, **problems(422)},
    openapi_extra=header_parameters(LAST_EVENT_ID),
)
async def user_events(request: Request, once: Once = False) -> Response:
    """Everything that happens to the caller's tasks, from a snapshot of the newest ones. `Last-Event-ID` goes on where
    a stream broke; after more events than are kept a snapshot comes again."""
    principal = await caller(request, "read")
    gateway, after = gateway_of(request), _last_event_id(request)
    stream = _UserStream(gateway, principal.user, base=base_url(request), after=after, is_once=once)
    return _Streaming(request, stream.parts, user=principal.user)


class _Streaming(StreamingResponse):
    """The parts that `parts` makes of a watcher. Counts and watches in one step, so that however many begin at once
    are no more than allowed; raises TooMany before anything is sent."""

    def __init__(
        self, request: Request, parts: Callable[[Watcher], AsyncGenerator[bytes]], *, user: str, task_id: str = ALL
    ) -> None:
        said = limit_headers(request) | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((), media_type="text/event-stream", headers=said)
        self._gateway = gateway_of(request)
        self._credentials = request.headers
        self._parts = parts
        self._watched = user, task_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _check_streams(self._gateway, self._watched[0])
        async with self._gateway.hub.watch(*self._watched) as watcher:
            self.body_iterator = self._while_let_in(self._parts(watcher))
            await super().__call__(scope, receive, send)

    async def _while_let_in(self, parts: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
        """`parts` until the key is revoked or the token expires: who connects again is refused; or until Redis does not
        answer: the client connects again, with the id that it saw last."""
        async with aclosing(parts):
            with suppress(RedisError):
                async for part in parts:
                    if not await self._gateway.security.is_still_good(self._credentials):
                        return
                    yield part


class _TaskStream:
    """The parts of one response. Ids only rise; what was sent once is not sent again."""

    def __init__(self, gateway: Gateway, task: Task, *, base: str, after: str | None, is_once: bool) -> None:
        self._gateway = gateway
        self._task = task
        self._base = base
        self._after = after
        self._is_once = is_once

    async def parts(self, watcher: Watcher) -> AsyncGenerator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        if self._after is None or self._is_once:
            self._after, snapshot, is_over = await self._snapshot()
            yield snapshot
            if self._is_once:
                return
            if is_over is not None:
                yield is_over
                return
        watcher.resync()  # for what came between, or since Last-Event-ID
        async for part in _following(watcher, self._replay, self._told, self._is_last):
            yield part

    async def _snapshot(self) -> tuple[str, bytes, bytes | None]:
        """The id that it reflects, the event, and the final event where the task has ended."""
        last, task = await self._gateway.hub.snapshot(self._task.id)
        if task is None:
            raise NotFound(NO_SUCH_TASK)
        body = snapshot_body(self._gateway, task, self._base)
        over = sse(event=task.status, data=body, event_id=last) if task.is_final else None
        return last, sse(event="snapshot", data=body, event_id=last), over

    async def _replay(self) -> list[Event]:
        await self._gateway.ledger.awaited(self._task)  # that it became an orphan is told once, and not kept
        return await self._gateway.hub.replay(task=self._task, after=self._after or "0-0")

    async def _told(self, event: Event) -> bytes | None:
        if event.kind == ORPHANED:
            await self._gateway.ledger.awaited(self._task)
        if stream_id(event.id) <= stream_id(self._after or "0-0"):
            return None
        self._after = event.id
        return await _told(self._gateway, event, self._base)

    @staticmethod
    def _is_last(event: Event) -> bool:
        return event.is_final


class _UserStream:
    """As _TaskStream, of all tasks, without an end."""

    def __init__(self, gateway: Gateway, user: str, *, base: str, after: str | None, is_once: bool) -> None:
        self._gateway = gateway
        self._user = user
        self._base = base
        self._after = after
        self._is_once = is_once

    async def parts(self, watcher: Watcher) -> AsyncGenerator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        hub = self._gateway.hub
        if self._after is None or self._is_once or await hub.has_dropped(self._user, after=self._after):
            self._after, snapshot = await self._snapshot()
            yield snapshot
            if self._is_once:
                return
        watcher.resync()
        async for part in _following(watcher, self._replay, self._told, lambda _: False):
            yield part

    async def _snapshot(self) -> tuple[str, bytes]:
        last = await self._gateway.hub.last_id(self._user)
        newest = await self._gateway.ledger.newest(self._user, before=None, count=RECENT)
        tasks = await self._gateway.ledger.many([task_id for task_id, _ in newest])
        body = {"tasks": [snapshot_body(self._gateway, task, self._base) for task in tasks]}
        return last, sse(event="snapshot", data=body, event_id=last)

    async def _replay(self) -> list[Event]:
        return await self._gateway.hub.replay(user=self._user, after=self._after or "0-0")

    async def _told(self, event: Event) -> bytes | None:
        if stream_id(event.id) <= stream_id(self._after or "0-0"):
            return None
        self._after = event.id
        return await _told(self._gateway, event, self._base)


async def _following(watcher: Watcher, replay: Any, told: Any, is_last: Any) -> AsyncIterator[bytes]:
    """Events as they come, a comment where none does, until the last one or until the gateway stops."""
    while True:
        if not await watcher.wait(COMMENT_EVERY_S):
            yield COMMENT
            continue
        events = watcher.take()
        if watcher.is_closing:
            return
        if watcher.must_resync:
            watcher.must_resync = False
            try:
                events = await replay()
            except (RedisError, OSError):
                return  # the client connects again, with the id that it saw last
        for event in events:
            part = await told(event)
            if part is not None:
                yield part
            if is_last(event):
                return


async def _told(gateway: Gateway, event: Event, base: str) -> bytes:
    """An event as it is sent: a final one is the whole task."""
    if not event.is_final:
        return sse(event=event.kind, data=event.data, event_id=event.id)
    task = await gateway.ledger.get(event.task_id)
    if task is None:
        return sse(event=event.kind, data=urls_of(event.task_id, base), event_id=event.id)
    return sse(event=event.kind, data=snapshot_body(gateway, task, base), event_id=event.id)


def _last_event_id(request: Request) -> str | None:
    """Where to go on; None for what is no id of ours."""
    given = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    return given if given is not None and is_stream_id(given) else None


def _check_streams(gateway: Gateway, user: str) -> None:
    most = gateway.settings.max_streams_per_user
    if gateway.hub.count(user) >= most:
        raise TooMany(
            f"you hold {most} streams open here; close one, or watch all tasks by one stream of `/events`",
            retryable=True,
            headers={"Retry-After": "5"},
        )
