"""Headers that every answer has, and cross-origin requests.

The content security policy is the strictest under which the page works: nothing inline, nothing from elsewhere, in
nobody's frame. Answers are not cached unless their route says so, since most depend on who asks. Other origins may call
only where the operator lists them; keys are sent by header and never by cookie, so that no page of a stranger acts for
whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
ALWAYS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
UNLESS_SAID: Final = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"}
TRANSPORT: Final = {"Strict-Transport-Security": "max-age=31536000"}
OF_OPENAI: Final = (  # what openai's client 6.49 sends from a page
    *("OpenAI-Organization", "OpenAI-Project", "User-Agent", "X-Stainless-Arch", "X-Stainless-Helper-Method"),
    *("X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version", "X-Stainless-Retry-Count"),
    *("X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Timeout"),
)
ALLOWED: Final = (
    *("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "If-Range", "Last-Event-ID", "Prefer"),
    *("Range", "X-API-Key", "X-Request-ID", "traceparent"),
    *OF_OPENAI,
)
EXPOSED: Final = (
    *("Content-Disposition", "Content-Range", "ETag", "Idempotency-Replayed", "Location", "Preference-Applied"),
    *("RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "X-Request-ID", "X-Should-Retry", "X-Task-ID"),
)


class SecurityHeaders:
    """Adds them to every answer of an application. `is_https` says that clients reach it by https alone."""

    def __init__(self, app: ASGIApp, *, is_https: bool = False) -> None:
        self._app = app
        self._always = ALWAYS | (TRANSPORT if is_https else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._always.items():
                    headers[name] = value
                for name, value in UNLESS_SAID.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, answer if scope["type"] == "http" else send)


class CrossOrigin(CORSMiddleware):
    """Lets pages of `origins` call an application."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=ALLOWED,
            expose_headers=EXPOSED,
            max_age=600,
        )
