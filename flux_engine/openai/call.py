"""One OpenAI request in a job's `input`, as RunPod hands over `/v2/ID/openai/v1/...`: translated there and back.

    call = OpenAICall.of(request, stream)              # None: it is a job of the contract
    ...
    request = await call.as_job(context)               # or call.models(...), where it asks for those
    answer = await call.answered(result)
    error = call.failed(answer)                        # where the job or the translation was refused

`stream` takes the text of server-sent events; without one a streamed request is answered at its end, in one piece. One
that fails with OSError costs its event alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Self

from flux_engine.errors import InvalidInput
from flux_engine.job.base import JsonObject, ParseContext
from flux_engine.job.parse import Request
from flux_engine.job.validation import shown
from flux_engine.openai.answer import images_body, models_body
from flux_engine.openai.error import error_body, status_of
from flux_engine.openai.events import PartialImages, as_text, completed_events, error_event
from flux_engine.openai.request import Asked, edit_job, generation_job

ROUTE: Final = "openai_route"
INPUT: Final = "openai_input"
MODELS: Final = "/v1/models"
JOBS: Final = {"/v1/images/generations": generation_job, "/v1/images/edits": edit_job}

log = logging.getLogger(__name__)

Stream = Callable[[str], Awaitable[None]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class OpenAICall:
    """The way of one request; see the module."""

    def __init__(self, request: Request, stream: Stream | None) -> None:
        self._request = request
        self._given = request.input or {}
        self._stream = stream
        self._asked: Asked | None = None
        self._partials: PartialImages | None = None
        self._has_streamed = False

    @classmethod
    def of(cls, request: Request, stream: Stream | None) -> Self | None:
        """The call that `request` is, if it is one."""
        is_call = request.input is not None and request.input.get(ROUTE) is not None
        return cls(request, stream) if is_call else None

    @property
    def asks_for_models(self) -> bool:
        return bool(self._given[ROUTE] == MODELS)

    def models(self, names: Iterable[str]) -> JsonObject:
        """The answer where it asks for the models, of which `names` are served."""
        return models_body(names, created=_now())

    async def as_job(self, context: ParseContext) -> Request:
        """The request with the job that it asks for. Raises InvalidInput."""
        route = self._given[ROUTE]
        translate = JOBS.get(route) if isinstance(route, str) else None
        if translate is None:
            known = ", ".join((*JOBS, MODELS))
            raise InvalidInput(f"this worker answers {known}; got {shown(route)}", field=ROUTE)
        self._asked = asked = await asyncio.to_thread(translate, self._given.get(INPUT), context)
        if asked.wishes.is_streamed and self._stream is not None:
            self._partials = PartialImages(asked, size=str(asked.job.get("size", "auto")))
        wished = asked.wishes.response_format
        return replace(self._request, input=asked.job | ({"response_format": wished} if wished is not None else {}))

    def listening(self, send: Send | None) -> Send | None:
        """`send`, a job's progress, told to the stream as well where it is due for a partial picture."""
        if self._stream is None:
            return send

        async def both(update: dict[str, Any]) -> None:
            event = self._partials.event(update, created=_now()) if self._partials is not None else None
            if event is not None:
                await self._tell(event)
            if send is not None:
                await send(update)

        return both

    async def answered(self, result: Mapping[str, Any]) -> JsonObject:
        """OpenAI's answer for the job's result."""
        assert self._asked is not None  # noqa: S101 - the result is that of `as_job`
        if self._partials is not None:
            for event in completed_events(result, self._asked, created=_now()):
                await self._tell(event)
        return images_body(result, self._asked, created=_now())

    async def failed(self, answer: Mapping[str, Any]) -> JsonObject:
        """`answer` with OpenAI's error, and the HTTP status that it means, in place of the contract's."""
        error = json.loads(answer["error"])
        body = error_body(error)
        if self._has_streamed:
            await self._tell(error_event(body))
        text = json.dumps(body | {"status": status_of(error), "retryable": error["retryable"]}, ensure_ascii=False)
        return {**answer, "error": text}

    async def _tell(self, event: Mapping[str, Any]) -> None:
        if self._stream is not None:
            self._has_streamed = True
            try:
                await self._stream(as_text(event))
            except (OSError, TimeoutError) as error:  # the answer holds it all the same
                log.warning("event of the stream lost", extra={"detail": type(error).__name__})


def _now() -> int:
    return int(time.time())
