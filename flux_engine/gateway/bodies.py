"""What stands around every route: a bound on bodies while they are read, HEAD, and an answer where something broke.

Starlette's own limiter answers in plain text where a request declares its length; here every refusal is a problem.
"""

from __future__ import annotations

import logging
import uuid

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flux_engine.gateway.problems import BodyTooLarge, Problem
from flux_engine.gateway.routes.answer import problem_answer

log = logging.getLogger(__name__)


class Unforeseen:
    """ASGI middleware. What nobody foresaw is a problem with a reference that stands in the log as well."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            return  # while its body was read: nobody is left to answer
        except Exception:
            reference = uuid.uuid4().hex[:12]
            log.exception("request failed", extra={"code": "internal", "reference": reference})
            if has_begun or scope["type"] != "http":
                raise
            said = f"something unforeseen broke; send the request again, or report reference {reference}"
            await problem_answer(Request(scope), _Broken(said, retryable=True))(scope, receive, send)


class _Broken(Problem):
    status = 500


class BodyLimit:
    """ASGI middleware. A body that turns out too large ends the request with a problem, by the app's own handler."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > self._limit:
            await problem_answer(Request(scope), self._too_large())(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"a request may have up to {self._limit} bytes; send pictures as https URLs")


class Head:
    """ASGI middleware. HEAD is answered as GET is, without the body; a stream of events has no end to be described."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].endswith("/events"):
            await self._app(scope, receive, send)
            return

        inner = {**scope, "method": "GET"}

        async def answer(message: Message) -> None:
            scope["route"] = inner.get("route")  # for the numbers and the log
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app(inner, receive, answer)
