"""What became of webhooks, sending one again, and the secret that they are signed with."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse

from flux_engine.gateway.problems import NotFound, Refused
from flux_engine.gateway.routes.answer import begun, limit_headers
from flux_engine.gateway.routes.document import answer, problems
from flux_engine.gateway.routes.request import caller, gateway_of
from flux_engine.gateway.webhooks.delivery import Place

router: Final = APIRouter(tags=["webhooks"])
MAX_PAGE: Final = 100
CURSOR: Final = re.compile(r"([0-9]{1,15})-([A-Za-z0-9_]{1,64})")
DELIVERY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["id", "task_id", "event", "url", "state", "created_at", "attempts"],
    "properties": {
        "id": {"type": "string"},
        "task_id": {"type": "string"},
        "event": {"type": "string"},
        "url": {"type": "string"},
        "state": {"enum": ["pending", "delivered", "failed"]},
        "created_at": {"type": "string", "format": "date-time"},
        "next_attempt_at": {"type": "string", "format": "date-time"},
        "attempts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "ms"],
                "properties": {
                    "at": {"type": "string", "format": "date-time"},
                    "status": {"type": "integer"},
                    "error": {"type": "string"},
                    "ms": {"type": "integer"},
                },
            },
        },
    },
}
DELIVERIES: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["deliveries", "next"],
    "properties": {"deliveries": {"type": "array", "items": DELIVERY}, "next": {"type": ["string", "null"]}},
}
ACCEPTED: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["id", "state"],
    "properties": {"id": {"type": "string"}, "state": {"const": "pending"}},
}
SECRET: Final[dict[str, Any]] = {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}


@router.get(
    "/webhooks/deliveries",
    responses={200: answer("A page of the caller's deliveries, the newest first", DELIVERIES), **problems(422)},
)
async def deliveries(
    request: Request,
    *,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=100, description="`next` of the page before")] = None,
) -> JSONResponse:
    """What became of the caller's webhooks: kept for seven days, the newest thousand."""
    principal = await caller(request, "read")
    after = _opened(cursor)
    found = await gateway_of(request).webhooks.deliveries(principal.user, limit=limit + 1, after=after)
    shown = found[:limit]
    following = _cursor(shown[-1].place) if len(found) > limit else None
    body = {"deliveries": [delivery.public() for delivery in shown], "next": following}
    return JSONResponse(body, headers=limit_headers(request))


@router.post(
    "/webhooks/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses={202: answer("It is sent now, with all its retries", ACCEPTED), **problems(404, 422)},
)
async def redeliver(
    request: Request, delivery_id: Annotated[str, Path(max_length=100, description="As the log of deliveries has it")]
) -> JSONResponse:
    """Send one delivery again, with the same id and body."""
    principal = await caller(request, "generate")
    with begun():
        is_known = await gateway_of(request).webhooks.redeliver(principal.user, delivery_id)
    if not is_known:
        raise NotFound("no such delivery")
    return JSONResponse({"id": delivery_id, "state": "pending"}, status_code=202, headers=limit_headers(request))


@router.get("/webhooks/secret", responses={200: answer("The secret", SECRET), **problems()})
@router.get("/v1/webhooks/default/secret", responses={200: answer("The secret", SECRET), **problems()})
async def secret(request: Request) -> JSONResponse:
    """The secret that the caller's webhooks are signed with, for the receiver to verify them."""
    principal = await caller(request, "generate")
    key = gateway_of(request).webhooks.secret_of(principal.user)
    return JSONResponse({"key": key}, headers=limit_headers(request))


def _cursor(place: Place) -> str:
    return f"{round(place.created_at * 1000)}-{place.id}"


def _opened(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise Refused("`cursor` must be the `next` of an earlier answer", field="cursor")
    return Place(int(found[1]) / 1000, found[2])
