"""What belongs to the caller and is no task: tokens, and what is left of the limits."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

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
WINDOW: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "window_seconds", "quota", "used", "remaining", "reset_seconds"],
    "properties": {
        "name": {"type": "string"},
        "window_seconds": {"type": "integer"},
        "quota": {"type": "integer"},
        "used": {"type": "number"},
        "remaining": {"type": "number", "minimum": 0},
        "reset_seconds": {"type": "number", "minimum": 0},
    },
}
USAGE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["user", "work", "tasks"],
    "properties": {
        "user": {"type": "string"},
        "work": {"type": "array", "items": WINDOW},
        "tasks": {
            "type": "object",
            "required": ["waiting", "in_flight"],
            "properties": {"waiting": {"type": "integer"}, "in_flight": {"type": "integer"}},
        },
    },
}


@router.post("/auth/token", responses={200: answer("A token of 15 minutes at most", TOKEN), **problems()})
async def token(request: Request) -> JSONResponse:
    """Trade the API key in `Authorization` for a short-lived token with the same scopes."""
    gateway = gateway_of(request)
    issued = await gateway.security.exchange(request.headers, address=client_address(request))
    request.state.limit_headers = dict(await gateway.limits.check_request(issued.user))
    body = {
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in_s,
        "scope": " ".join(sorted(issued.scopes)),
    }
    return JSONResponse(body, headers=limit_headers(request) | NO_STORE)


@router.get("/usage", responses={200: answer("What is left of the caller's work", USAGE), **problems()})
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
            "remaining": max(0.0, standing.remaining),
            "reset_seconds": round(standing.reset_s, 1),
        }
        for standing in await gateway.limits.usage(principal.user)
    ]
    body = {
        "user": principal.user,
        "work": windows,
        "tasks": {"waiting": counts.waiting_of_user, "in_flight": counts.in_flight_of_user},
    }
    return JSONResponse(body, headers=limit_headers(request) | NO_STORE)
