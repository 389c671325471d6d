"""What happens around every request: its id, its times, its numbers, its line in the log.

Plain ASGI, so that streams stay streams. The id is the client's X-Request-ID where it is one that a log can hold, else
a new one; it comes back in the answer and goes with the task to the worker. The log names the route's pattern and not
the path, which is a stranger's text.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux_engine.gateway.watching.metrics import UNMATCHED, GatewayMetrics
from flux_engine.gateway.watching.timing import request_phases, server_timing
from flux_engine.gateway.watching.tracing import current_trace_id, current_traceparent
from flux_engine.logs import about_request

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
CHANGES: Final = ("POST", "PUT", "PATCH", "DELETE")

log = logging.getLogger(__name__)


class Watched:
    """Wraps an application. Routes find `request_id` and `traceparent` in their request's state."""

    def __init__(
        self, app: ASGIApp, *, metrics: GatewayMetrics, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, request_id, status = self._clock(), _request_id(scope), 0
        state = scope.setdefault("state", {})
        state["request_id"], state["traceparent"] = request_id, current_traceparent()
        self._metrics.request_began()
        with about_request(request_id, current_trace_id()), request_phases() as phases:

            async def answer(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    seconds = self._clock() - begun
                    headers = MutableHeaders(scope=message)
                    headers["X-Request-ID"] = request_id
                    headers["Server-Timing"] = server_timing(phases, seconds * 1000)
                    self._metrics.answered(scope["method"], _route(scope), status, seconds)
                await send(message)

            try:
                await self._app(scope, receive, answer)
            finally:
                self._metrics.request_ended()
                self._tell(scope, status, round((self._clock() - begun) * 1000))

    def _tell(self, scope: Scope, status: int, ms: int) -> None:
        level = logging.INFO if scope["method"] in CHANGES or status >= 500 else logging.DEBUG
        route = f"{scope['method'] if scope['method'].isalpha() else '?'} {_route(scope) or UNMATCHED}"
        log.log(level, "request", extra={"ms": ms, "status": status, "route": route[:100]})


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str | None:
    path = getattr(scope.get("route"), "path_format", None)
    return path if isinstance(path, str) else None
