"""Whether the gateway is well, what it serves, and where its queue knocks."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from redis.exceptions import RedisError, ResponseError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import StorageFailed
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.problems import NotFound
from flux_engine.gateway.routes.document import answer, problems
from flux_engine.gateway.routes.request import NO_SUCH_TASK, TASK_ID, caller, gateway_of
from flux_engine.gateway.watching.metrics import MEDIA_TYPE

router: Final = APIRouter(tags=["system"])
PROBE_MS: Final = 1000
CHECK_S: Final = 3.0
CHECKED: Final = ("redis", "queue", "storage")
METRICS: Final[dict[str, Any]] = {
    "description": "Prometheus' text",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
READY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["ready", "checks"],
    "properties": {"ready": {"type": "boolean"}, "checks": {"type": "object"}},
}


@router.get("/healthz", responses={200: answer("Alive", {"type": "object"}), **problems(authenticated=False)})
async def healthz() -> JSONResponse:
    """Whether this process answers at all."""
    return JSONResponse({"alive": True}, headers={"Cache-Control": "no-store"})


@router.get(
    "/readyz",
    responses={200: answer("Ready", READY), 503: answer("Not ready", READY), 500: problems(authenticated=False)[500]},
)
async def readyz(request: Request) -> JSONResponse:
    """Whether tasks can be taken: Redis, the queue and the storage, each by name."""
    gateway = gateway_of(request)
    states = await _states(gateway)
    checks = dict(zip(CHECKED, states, strict=True))
    is_ready = all(state == "ok" for state in states)
    body = {"ready": is_ready, "checks": checks}
    return JSONResponse(body, status_code=200 if is_ready else 503, headers={"Cache-Control": "no-store"})


@router.get("/metrics", response_class=Response, responses={200: METRICS, **problems(404)})
async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    gateway = gateway_of(request)
    who = gateway.settings.gateway_metrics
    if who == "off":
        raise NotFound("no such address; `/openapi.json` lists them all")
    if who == "admin":
        await caller(request, "admin")
    states = dict(zip(CHECKED, await _states(gateway), strict=True))
    for name, state in states.items():
        gateway.metrics.dependency_is(name, up=state == "ok")
    if states["redis"] == "ok":
        with suppress(CacheAway):  # this connection may learn a moment later that Redis is back
            counts = await gateway.line.counts()
            gateway.metrics.line_is(waiting=counts.waiting, in_flight=counts.in_flight)
    # One that does not answer is not waited for again: a scrape that takes too long tells nothing at all.
    health = await gateway.capacity.health() if states["queue"] == "ok" else None
    if health is not None:
        gateway.metrics.workers_are(health.workers)
    return Response(gateway.metrics.page(), media_type=MEDIA_TYPE)


@router.post("/hooks/queue/{task_id}/{secret}", include_in_schema=False)
async def queue_hook(request: Request, task_id: str, secret: str) -> Response:
    """The queue says that a task has changed. It is not believed: its status is read."""
    gateway = gateway_of(request)
    expected = gateway.dispatcher.hook_path(task_id).rpartition("/")[2] if TASK_ID.fullmatch(task_id) else ""
    if not expected or not hmac.compare_digest(secret.encode(), expected.encode()):
        raise NotFound(NO_SUCH_TASK)
    await gateway.sweep.nudge(task_id)
    return Response(status_code=200)


async def _states(gateway: Gateway) -> list[str]:
    """Of CHECKED, in its order."""
    return list(await asyncio.gather(_redis(gateway), _queue(gateway), _storage(gateway)))


async def _redis(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(CHECK_S):
            await gateway.redis.set(gateway.ledger.keys.probe, "", px=PROBE_MS)
    except ResponseError:  # it is full, or follows another server
        return "takes no writes"
    except (RedisError, OSError, TimeoutError):
        return "does not answer"
    return "ok"


async def _queue(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(CHECK_S):
            return "ok" if await gateway.capacity.health() is not None else "does not answer"
    except TimeoutError:
        return "does not answer"


async def _storage(gateway: Gateway) -> str:
    try:
        async with asyncio.timeout(CHECK_S):
            await gateway.results.store.probe()
    except StorageFailed:
        return "takes no files"
    except TimeoutError:
        return "does not answer"
    return "ok"
