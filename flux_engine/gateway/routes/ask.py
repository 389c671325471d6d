"""`GET /capabilities` and `POST /estimate`: questions that make nothing and wake no worker."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from flux_engine.gateway.routes.answer import limit_headers
from flux_engine.gateway.routes.document import answer, any_job_body, problems
from flux_engine.gateway.routes.request import caller, gateway_of, json_body, split_extras

router: Final = APIRouter(tags=["ask"])


@router.get("/capabilities", responses={200: answer("What is served", {"type": "object"}), **problems()})
async def capabilities(request: Request) -> JSONResponse:
    """Models, the JSON Schema of their jobs with defaults and bounds, limits and LoRAs."""
    await caller(request, "read")
    return JSONResponse(await gateway_of(request).asking.capabilities(), headers=limit_headers(request))


@router.post(
    "/estimate",
    responses={200: answer("What the job would take", {"type": "object"}), **problems(400, 413, 415, 422)},
    openapi_extra=any_job_body(),
)
async def estimate(request: Request) -> JSONResponse:
    """Work, seconds warm and cold, money where prices are set, and whether the cache has it. Makes nothing."""
    await caller(request, "read")
    body, _ = split_extras(request, await json_body(request))
    return JSONResponse(await gateway_of(request).asking.estimate(body), headers=limit_headers(request))
