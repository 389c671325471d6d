"""What a request says, read once: who asks, a JSON body, the headers that mean something here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn, cast

from fastapi import Request

from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.problems import Malformed, NotFound, Refused, WrongMedia
from flux_engine.gateway.seams import Principal, Scope
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.wanted import Extras
from flux_engine.gateway.watching.timing import phase

MAX_WAIT_S: Final = 60
MAX_KEY_LENGTH: Final = 255
MAX_DEADLINE_S: Final = 86_400
TASK_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,9})(?=$|[,;\s])", re.IGNORECASE)
KEY: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
NO_SUCH_TASK: Final = "no such task"


def gateway_of(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


async def caller(request: Request, scope: Scope) -> Principal:
    """Whoever asks, with `scope` and within the limit of requests. Raises Unauthorized, Forbidden and TooMany."""
    gateway = gateway_of(request)
    with phase("auth"):
        principal = await gateway.security.authenticate(request.headers, address=client_address(request))
        gateway.security.require(principal, scope)
    with phase("limits"):
        request.state.limit_headers = dict(await gateway.limits.check_request(principal.user))
    return principal


def client_address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def own_task(request: Request, task_id: str, principal: Principal) -> Task:
    """The caller's task. Raises NotFound, for another user's as for an unknown one."""
    ledger = gateway_of(request).ledger
    task = await ledger.own(task_id, principal.user) if TASK_ID.fullmatch(task_id) else None
    if task is None:
        raise NotFound(NO_SUCH_TASK)
    await ledger.adopt(task)
    return task


async def json_body(request: Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The body as a JSON object. Raises Malformed, WrongMedia and BodyTooLarge."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise WrongMedia("send a JSON object, with `Content-Type: application/json`")
    raw = await request.body()
    if not raw and may_be_empty:
        return {}
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Malformed('the body must be a JSON object such as {"prompt": "a red sun"}') from None
    if not isinstance(body, dict):
        raise Malformed('the body must be a JSON object such as {"prompt": "a red sun"}')
    return body


def split_extras(request: Request, body: Mapping[str, Any]) -> tuple[dict[str, Any], Extras]:
    """A job's input, and what the client wishes of the gateway. Raises Refused."""
    job = {name: value for name, value in body.items() if name not in ("webhook", "priority", "deadline_seconds")}
    priority, deadline = body.get("priority"), body.get("deadline_seconds")
    if priority not in (None, "normal", "low"):
        raise Refused("`priority` must be `normal` or `low`", field="priority")
    if deadline is not None and (
        isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 1 <= deadline <= MAX_DEADLINE_S
    ):
        raise Refused(f"`deadline_seconds` must be a number from 1 to {MAX_DEADLINE_S}", field="deadline_seconds")
    webhook = body.get("webhook")
    target = gateway_of(request).webhook_target(webhook) if webhook is not None else None
    extras = Extras(webhook=target, priority=priority or "normal", deadline_seconds=deadline)
    return job, extras


def unheeded(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Warnings of what a worker would do and the gateway does not."""
    if body.get("response_format") == "b64_json":
        return ("`response_format` has no effect here: results are files, at `result_url`",)
    return ()


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, quoted or bare. Raises Malformed."""
    written = request.headers.get("idempotency-key")
    if written is None:
        return None
    key = written.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(key) > MAX_KEY_LENGTH or not KEY.fullmatch(key):
        raise Malformed(
            f"`Idempotency-Key` must be 1 to {MAX_KEY_LENGTH} visible ASCII characters", field="Idempotency-Key"
        )
    return key


def is_repeat(request: Request) -> bool:
    """Whether the openai client says that it sends this once more."""
    count = request.headers.get("x-stainless-retry-count", "0")
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


def wished_wait(request: Request) -> int | None:
    """Seconds of `Prefer: wait=N`, 60 at most; None where it is not there. What is malformed is ignored (RFC 7240)."""
    found = WAIT.search(", ".join(request.headers.getlist("prefer")))
    return min(int(found[1]), MAX_WAIT_S) if found is not None else None


def request_id(request: Request) -> str:
    """The X-Request-ID that this request came with, or that was made for it."""
    return str(getattr(request.state, "request_id", ""))


def traceparent(request: Request) -> str:
    """The trace that this request is part of, for the worker's log."""
    return str(getattr(request.state, "traceparent", ""))


def base_url(request: Request) -> str:
    """What the URLs of an answer begin with."""
    public = gateway_of(request).settings.gateway_public_url
    return public if public is not None else str(request.base_url).rstrip("/")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
