"""The FastAPI application: routes, and one shape for everything that goes wrong."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import FluxError
from flux_engine.gateway.bodies import BodyLimit, Head, Unforeseen
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.problems import Malformed, NotFound, Problem, Refused, Unavailable
from flux_engine.gateway.routes import (
    account,
    ask,
    create,
    docs,
    events,
    openai,
    page,
    results,
    system,
    tasks,
    webhooks,
)
from flux_engine.gateway.routes.answer import problem_answer
from flux_engine.gateway.routes.document import with_credentials
from flux_engine.gateway.security.headers import CrossOrigin, SecurityHeaders
from flux_engine.gateway.watching.middleware import Watched

TITLE: Final = "FLUX gateway"
VERSION: Final = "1"
REDIS_AWAY: Final = "the ledger of tasks cannot be reached now; nothing was done, so send the request again"

DESCRIBED: Final = (
    create.router,
    tasks.router,
    results.router,
    events.router,
    openai.router,
    account.router,
    ask.router,
    webhooks.router,
    system.router,
)

log = logging.getLogger(__name__)

Expected = TypeVar("Expected", bound=Exception)


def create_app(gateway: Gateway) -> FastAPI:
    """The application of an open gateway."""
    settings = gateway.settings
    has_docs = settings.gateway_docs == "on"
    app = FastAPI(
        title=TITLE,
        version=VERSION,
        docs_url=None,  # docs.py has one that the content security policy allows
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/openapi.json" if has_docs else None,
        telemetry={"tracer_provider": gateway.tracing, "metrics": False, "logs": False, "operation_spans": False},
    )
    # The last one added is the outermost.
    app.add_middleware(Head)
    app.add_middleware(BodyLimit, limit=settings.gateway_max_body_bytes)
    app.add_middleware(Unforeseen)
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(Watched, metrics=gateway.metrics)
    app.add_middleware(SecurityHeaders, is_https=(settings.gateway_public_url or "").startswith("https://"))
    app.state.gateway = gateway
    _include(app, *DESCRIBED)
    if has_docs:
        app.include_router(docs.router)
    app.include_router(page.router)
    page.serve_files(app)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(FluxError, _flux_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RedisError, _redis_away)
    app.add_exception_handler(CacheAway, _redis_away)
    return app


def openapi_document() -> dict[str, Any]:
    """What `/openapi.json` answers, made without a gateway."""
    app = FastAPI(title=TITLE, version=VERSION)
    _include(app, *DESCRIBED)
    return app.openapi()


def _include(app: FastAPI, *routers: APIRouter) -> None:
    """With what the routes read by themselves and FastAPI therefore does not describe."""
    for router in routers:
        app.include_router(router)
    described = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = with_credentials(described())
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]


class _NotAllowed(Problem):
    status = 405
    code = "method_not_allowed"


async def _problem(request: Request, error: Exception) -> Response:
    return problem_answer(request, _as(Problem, error))


async def _flux_error(request: Request, error: Exception) -> Response:
    return problem_answer(request, Refused.of(_as(FluxError, error)))


async def _invalid(request: Request, error: Exception) -> Response:
    """A parameter of the path or the query that FastAPI itself has refused."""
    first = _as(RequestValidationError, error).errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else None
    return problem_answer(request, Refused(f"`{name}`: {first['msg']}", field=name))


async def _http(request: Request, error: Exception) -> Response:
    """What Starlette answers by itself."""
    known = _as(HTTPException, error)
    if known.status_code == 404:
        problem: Problem = NotFound("no such address; `/openapi.json` lists them all")
    elif known.status_code == 405:
        problem = _NotAllowed("another method is needed here", headers=dict(known.headers or {}))
    else:
        problem = Malformed("the request cannot be read")
    return problem_answer(request, problem)


async def _redis_away(request: Request, error: Exception) -> JSONResponse:
    log.warning("ledger unreachable", extra={"detail": type(error).__name__})
    return problem_answer(request, Unavailable(REDIS_AWAY))


def _as(kind: type[Expected], error: Exception) -> Expected:
    if not isinstance(error, kind):
        raise TypeError(f"expected {kind.__name__}")
    return error
