"""What OpenAI's client sends as a form, and its mistakes as its own exception classes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from flux_engine.errors import FluxError
from flux_engine.gateway.problems import Malformed, Problem, Refused
from flux_engine.gateway.routes.request import gateway_of
from flux_engine.openai.error import error_body, status_of
from flux_engine.openai.form import form_body


def is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("multipart/form-data", "application/x-www-form-urlencoded")


async def form_of(request: Request) -> dict[str, Any]:
    """The JSON body that a form says. Raises Malformed and Refused."""
    limit = gateway_of(request).settings.gateway_max_body_bytes
    try:
        async with request.form(max_files=32, max_fields=256, max_part_size=limit) as form:
            parts = await _parts(form)
    except (ValueError, KeyError) as error:
        raise Malformed("the form cannot be read") from error
    with openai_errors():
        return await asyncio.to_thread(form_body, parts)


async def _parts(form: FormData) -> list[tuple[str, str | bytes]]:
    return [
        (name, await value.read() if isinstance(value, UploadFile) else value) for name, value in form.multi_items()
    ]


@contextmanager
def openai_errors() -> Iterator[None]:
    """Within, what OpenAI's client did wrong is a problem of OpenAI's status."""
    try:
        yield
    except FluxError as error:
        raise as_openai(Refused.of(error)) from None


def as_openai(problem: Refused) -> Problem:
    """`problem` with the status that makes the openai client raise its own class, and the request's name of a field."""
    error = {
        "code": problem.code,
        "message": problem.detail,
        "field": problem.field,
        "retryable": problem.retryable,
    }
    said = error_body(error)["error"]
    made = Refused(problem.detail, field=problem.field, retryable=problem.retryable, extra={"error": said})
    made.code, made.status = problem.code, status_of(error)
    return made
