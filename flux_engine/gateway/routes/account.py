"""What belongs to the caller and is no task: tokens, what is left of the limits, deliveries of webhooks."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse

from flux_engine.gateway.problems import NotFound
from flux_engine.gateway.routes.answer import limit_headers
from flux_engine.gateway.routes.document import answer, problems
from flux_engine.gateway.routes.request import caller, client_address, gateway_of

router: Final = APIRouter(tags=["account"])
NO_STORE: Final = {"Cache-Control": "no-store"}
TOKEN: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in", "scope"],
    "properties": {
        "access_token": {"type": "string"},
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer"},
        "scope": {"type": "string"},
    },
}


@router.post("/auth/token", responses={200: answer("A token of 15 minutes at most", TOKEN), **problems()})
async def token(request: Request) -> JSONResponse:
    """Trade the API key in `Authorization` for a short-lived token with the same scopes."""
    issued = await gateway_of(request).security.exchange(request.headers, address=client_address(request))
    body = {
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in_s,
        "scope": " ".join(sorted(issued.scopes)),
    }
    return JSONResponse(body, headers=NO_STORE)


@router.get("/usage", responses={200: answer("What is left of the caller's work", {"type": "object"}), **problems()})
async def usage(request: Request) -> JSONResponse:
    """How much the caller has used and may still ask for, window by window, and how many tasks wait and run."""
    principal = await caller(request, "read")
    gateway = gateway_of(request)
    counts = await gateway.line.counts(principal.user)
    windows = [
        {
            "name": standing.policy.name,
            "window_seconds": standing.policy.window_s,
            "quota": standing.policy.quota,
            "used": round(standing.policy.quota - standing.remaining, 3),
            "remaining": standing.remaining,
        }
        for standing in await gateway.limits.usage(principal.user)
    ]
    body = {
        "user": principal.user,
        "work": windows,
        "tasks": {"waiting": counts.waiting_of_user, "in_flight": counts.in_flight_of_user},
    }
    return JSONResponse(body, headers=limit_headers(request) | NO_STORE)


@router.get(
    "/webhooks/deliveries",
    responses={200: answer("Deliveries, the newest first", {"type": "object"}), **problems(422)},
)
async def deliveries(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    before: Annotated[float | None, Query(description="`created_at` of the last one of the page before")] = None,
) -> JSONResponse:
    """What was sent to the caller's webhooks, every attempt of it, and the secret that they are signed with."""
    principal = await caller(request, "read")
    webhooks = gateway_of(request).webhooks
    found = await webhooks.deliveries(principal.user, limit=limit, before=before)
    body = {
        "deliveries": [delivery.public() for delivery in found],
        "secret": webhooks.secret_of(principal.user) if "generate" in principal.scopes else None,
    }
    return JSONResponse(body, headers=limit_headers(request) | NO_STORE)


@router.post(
    "/webhooks/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses={202: answer("It is sent once more", {"type": "object"}), **problems(404, 422)},
)
async def redeliver(request: Request, delivery_id: Annotated[str, Path(max_length=200)]) -> JSONResponse:
    """Send a delivery once more."""
    principal = await caller(request, "generate")
    if not await gateway_of(request).webhooks.redeliver(principal.user, delivery_id):
        raise NotFound("no such delivery")
    return JSONResponse({"id": delivery_id, "state": "due"}, status_code=202, headers=limit_headers(request))
