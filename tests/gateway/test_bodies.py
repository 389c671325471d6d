"""What stands around every route."""

from __future__ import annotations

import logging

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from flux_engine.gateway.bodies import Unforeseen

SCOPE: Scope = {"type": "http", "method": "POST", "path": "/estimate", "headers": [], "state": {}}


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()


async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize(("app", "statuses", "logged"), [(reads, [], []), (breaks, [500], ["request failed"])])
async def test_who_hangs_up_in_a_body_is_no_error(
    app: object, statuses: list[int], logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Message] = []
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Message:
        return next(parts, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    with caplog.at_level(logging.WARNING):
        await Unforeseen(app)(dict(SCOPE), receive, send)  # type: ignore[arg-type]
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == statuses
    assert caplog.messages == logged
