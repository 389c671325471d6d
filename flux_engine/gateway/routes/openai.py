"""OpenAI's images API: its requests become tasks, and their ends its answers (flux_engine/openai).

A request is held until its task has ended. Whoever hangs up may come again with the same body: the task goes on, and is
cancelled only once nobody has asked for it within half a minute.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from flux_engine.errors import StorageFailed
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.limits.policy import merged
from flux_engine.gateway.problems import Gone, NotFound, Problem, Refused, Unavailable
from flux_engine.gateway.routes.answer import limit_headers, problem_of, result_of
from flux_engine.gateway.routes.document import IDEMPOTENCY_KEY, answer, header_parameters, json_request, problems
from flux_engine.gateway.routes.openai_form import as_openai, form_of, is_form, openai_errors
from flux_engine.gateway.routes.request import (
    base_url,
    caller,
    gateway_of,
    idempotency_key,
    is_repeat,
    json_body,
    request_id,
    traceparent,
)
from flux_engine.gateway.seams import Principal
from flux_engine.gateway.task import Task
from flux_engine.gateway.tasks.events import Event
from flux_engine.gateway.tasks.look import ORPHANED_S
from flux_engine.gateway.tasks.wanted import Accepted, Wanted
from flux_engine.openai.answer import images_body, model_body, models_body
from flux_engine.openai.events import PartialImages, as_text, completed_events, error_event
from flux_engine.openai.request import Asked, edit_job, generation_job

router: Final = APIRouter(prefix="/v1", tags=["openai"])
LOOK_S: Final = 1.0
COMMENT_EVERY_S: Final = 15.0
LINK_S: Final = 900
IMAGES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "ImagesResponse; with `stream`, its events",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    },
    **problems(400, 404, 410, 413, 415, 422, 502),
}
PROMPT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {"prompt": {"type": "string", "minLength": 1, "maxLength": 4000}},
    "additionalProperties": True,
}
FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["prompt", "image"],
    "properties": {
        "prompt": {"type": "string"},
        "image": {"type": "string", "format": "binary"},
        "mask": {"type": "string", "format": "binary"},
    },
    "additionalProperties": True,
}
EDIT: Final[dict[str, Any]] = json_request(PROMPT)
EDIT["requestBody"]["content"]["multipart/form-data"] = {"schema": FORM}
HEADERS: Final = header_parameters(IDEMPOTENCY_KEY)

log = logging.getLogger(__name__)


@router.post("/images/generations", responses=IMAGES, openapi_extra=json_request(PROMPT) | HEADERS)
async def generations(request: Request) -> Response:
    """Pictures from a prompt, as OpenAI's `images.generate`."""
    principal = await caller(request, "generate")
    body = await json_body(request)
    context = await gateway_of(request).offers.context()
    with openai_errors():
        asked = generation_job(body, context)
    return await _answered(request, principal, asked, route="generations")


@router.post("/images/edits", responses=IMAGES, openapi_extra=EDIT | HEADERS)
async def edits(request: Request) -> Response:
    """A picture repainted, as OpenAI's `images.edit`; the mask's transparent part is repainted."""
    principal = await caller(request, "generate")
    body = await form_of(request) if is_form(request) else await json_body(request)
    context = await gateway_of(request).offers.context()
    with openai_errors():
        asked = await asyncio.to_thread(edit_job, body, context)
    return await _answered(request, principal, asked, route="edits")


@router.get("/models", responses={200: answer("What `model` may say", {"type": "object"}), **problems()})
async def models(request: Request) -> JSONResponse:
    """The models that are served, the default first, as OpenAI lists them."""
    await caller(request, "read")
    context = await gateway_of(request).offers.context()
    return JSONResponse(models_body(context.served_models, created=0), headers=limit_headers(request))


@router.get("/models/{name:path}", responses={200: answer("One model", {"type": "object"}), **problems(404, 422)})
async def model(request: Request, name: str) -> JSONResponse:
    """One of the models that are served."""
    await caller(request, "read")
    context = await gateway_of(request).offers.context()
    limits = context.find_model(name)
    if limits is None or limits.id not in context.served_models:
        raise NotFound(f"no such model; `{context.served_models[0]}` is the default")
    return JSONResponse(model_body(limits.id, created=0), headers=limit_headers(request))


async def _answered(request: Request, principal: Principal, asked: Asked, *, route: str) -> Response:
    gateway = gateway_of(request)
    wanted = Wanted(
        principal=principal,
        body=asked.job,
        kind="image",
        key=idempotency_key(request),
        is_repeat=is_repeat(request),
        route=route,
        request_id=request_id(request),
        traceparent=traceparent(request),
    )
    try:
        accepted = await gateway.intake.accept(wanted)
    except Refused as refused:
        raise as_openai(refused) from None
    task = accepted.task
    await gateway.ledger.adopt(task)
    headers = _headers(request, accepted)
    if asked.wishes.is_streamed:
        parts = _streamed(gateway, task, asked, base_url(request))
        return _Streamed(parts, media_type="text/event-stream", headers=headers | {"Cache-Control": "no-store"})
    try:
        task = await _until_final(request, task)
        body = await _images(gateway, task, asked, principal, base=base_url(request))
    except Problem as problem:
        problem.headers["X-Task-ID"] = task.id
        raise
    return JSONResponse(body, headers=headers)


class _Streamed(StreamingResponse):
    """Its parts learn that the client has hung up also where that is seen while one of them is sent."""

    def __init__(self, parts: AsyncGenerator[str], **more: Any) -> None:
        super().__init__(parts, **more)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._parts):
            await super().__call__(scope, receive, send)


async def _until_final(request: Request, task: Task) -> Task:
    """The ended task. Raises Unavailable where the gateway stops; where the client hangs up the task is an orphan."""
    gateway = gateway_of(request)
    while not task.is_final:
        task = await _known(gateway, await gateway.wait_until_final(task, seconds=LOOK_S))
        if not task.is_final and gateway.hub.is_closing:
            raise Unavailable(_goes_on(task, "the gateway restarts"))
        if not task.is_final and await request.is_disconnected():
            await gateway.ledger.orphan(task, until=time.time() + ORPHANED_S + 0.5)
            raise Unavailable("nobody waits for this answer")
    return task


def _goes_on(task: Task, reason: str) -> str:
    """What is said in place of the pictures of a task that is there: another one would be charged as well."""
    return (
        f"{reason}; `/task/{task.id}/result` has its pictures, and the same request with its `Idempotency-Key` or by"
        " the openai client goes on with it, while any other makes a new one"
    )


async def _known(gateway: Gateway, task: Task) -> Task:
    """`task` as it stands. Raises Unavailable where Redis has lost it: it would be waited for without an end."""
    known = task if task.is_final else await gateway.ledger.awaited(task)
    if known is None:
        raise Unavailable("nothing is known of this task any more; send the request again")
    return known


async def _images(gateway: Gateway, task: Task, asked: Asked, principal: Principal, *, base: str) -> dict[str, Any]:
    """ImagesResponse of an ended task. Raises Problem."""
    if task.status != "completed":
        problem = problem_of(task)
        raise as_openai(problem) if isinstance(problem, Refused) else problem
    result = result_of(task, base)
    if asked.wishes.response_format == "url":
        for index, image in enumerate(result["images"]):
            path = f"/task/{task.id}/result?index={index}"
            image["url"] = base + gateway.security.sign_path(path, principal, seconds=LINK_S)
    else:
        result["images"] = await _with_bytes(gateway, task, result["images"])
    return images_body(result, asked, created=int(task.created_at))


async def _with_bytes(gateway: Gateway, task: Task, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        read = [await gateway.results.read(file) for file in task.files]
    except StorageFailed as error:
        said = _goes_on(task, "the pictures are made and cannot be read now")
        raise Refused.described("storage_failed", said, retryable=True) from error
    data = [one for one in read if one is not None]
    if len(data) < len(read):
        raise Gone("the pictures of this task are gone; send another request", code="expired")
    encoded = await asyncio.to_thread(lambda: [base64.b64encode(one).decode() for one in data])
    pairs = zip(images, encoded, strict=True)
    return [{name: v for name, v in image.items() if name != "url"} | {"b64_json": text} for image, text in pairs]


async def _streamed(gateway: Gateway, task: Task, asked: Asked, base: str) -> AsyncGenerator[str]:
    """Partial pictures from previews, then the finished ones; an error is the last event."""
    parameters = task.parameters or {}
    partials = PartialImages(asked, size=f"{parameters.get('width')}x{parameters.get('height')}")
    try:
        async with gateway.hub.watch(task.user, task.id) as watcher:
            known = await _known(gateway, task)
            while not known.is_final and not watcher.is_closing:
                if not await watcher.wait(COMMENT_EVERY_S):
                    yield ": still here\n\n"
                for event in watcher.take():
                    partial = partials.event(_update(event), created=int(time.time()))
                    if partial is not None:
                        yield as_text(partial)
                known = await _known(gateway, known)
        if not known.is_final:
            raise Unavailable(_goes_on(known, "the gateway restarts"))
        if known.status != "completed":
            raise problem_of(known)
        result = result_of(known, base)
        result["images"] = await _with_bytes(gateway, known, result["images"])
        for finished in completed_events(result, asked, created=int(known.created_at)):
            yield as_text(finished)
    except Problem as problem:
        yield as_text(error_event(problem.body()))
    except (asyncio.CancelledError, GeneratorExit):
        with suppress(RedisError, OSError):
            await asyncio.shield(gateway.ledger.orphan(task, until=time.time() + ORPHANED_S + 0.5))
        raise


def _update(event: Event) -> Mapping[str, Any]:
    held = json.loads(event.data)
    return held if isinstance(held, dict) else {}


def _headers(request: Request, accepted: Accepted) -> dict[str, str]:
    headers = merged(limit_headers(request), accepted.headers) | {"X-Task-ID": accepted.task.id}
    return headers | ({"Idempotency-Replayed": "true"} if accepted.is_replayed else {})
