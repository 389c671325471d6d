"""`/v2/ID/openai/v1/...`: OpenAI's API on an endpoint. The handler gets `{"openai_route", "openai_input"}`.

RunPod documents this side for its own vLLM worker alone. Assumed here: a multipart form arrives as JSON with its files
in base64, the parts of a stream are passed on as they are, and a failed job answers with the status in its error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.multipart import BodyPartReader

from flux_engine.errors import InvalidInput
from flux_engine.openai.error import error_body
from flux_engine.openai.form import form_body
from local_platform.endpoint import Endpoint
from local_platform.job import Job, Status

WAIT_S: Final = 300.0


class OpenAIApi:
    """Routes of one endpoint below `/v2/ID/openai/`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def routes(self) -> list[web.RouteDef]:
        return [web.route("*", f"/v2/{self._endpoint.id}/openai/{{path:v1/.+}}", self.call, name="openai")]

    async def call(self, request: web.Request) -> web.StreamResponse:
        try:
            given = await _input(request)
        except InvalidInput as error:
            return web.json_response(error_body(json.loads(error.to_json("")))["error"], status=400)
        order = {"openai_route": f"/{request.match_info['path']}", "openai_input": given}
        job = self._endpoint.submit({"input": order}, is_sync=True)
        if given.get("stream") is True:
            return await self._streamed(request, job.id)
        return _answer(await self._endpoint.finished(job.id, timeout_s=WAIT_S))

    async def _streamed(self, request: web.Request, job_id: str) -> web.StreamResponse:
        """The parts as they come; where the job ends without any, its answer."""
        await self._endpoint.wait_for(lambda: self._has_news(job_id), timeout_s=WAIT_S)
        job = self._endpoint.queue[job_id]
        if not job.parts:
            return _answer(job)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        while True:
            for part in self._endpoint.queue.read_parts(job_id):
                await response.write(str(part).encode())
            job = self._endpoint.queue[job_id]
            if job.status.is_final and len(job.parts) == job.parts_read:
                return response
            await self._endpoint.wait_for(lambda: self._has_news(job_id), timeout_s=WAIT_S)

    def _has_news(self, job_id: str) -> bool | None:
        job = self._endpoint.queue[job_id]
        return True if job.status.is_final or len(job.parts) > job.parts_read else None


async def _input(request: web.Request) -> Mapping[str, object]:
    if request.method == "GET":
        return {}
    if request.content_type != "multipart/form-data":
        body: Mapping[str, object] = await request.json()
        return body
    parts: list[tuple[str, str | bytes]] = []
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name is not None:
            content = bytes(await part.read())
            parts.append((part.name, content if part.filename is not None else content.decode()))
    return form_body(parts)


def _answer(job: Job) -> web.Response:
    if job.status is Status.COMPLETED:
        return web.json_response(job.result.get("output"))
    try:
        error = json.loads(str(job.result.get("error")))
        headers = {"x-should-retry": "true" if error["retryable"] else "false"}
        return web.json_response({"error": error["error"]}, status=error["status"], headers=headers)
    except (ValueError, KeyError, TypeError):
        return web.json_response({"error": f"the job is {job.status}"}, status=500)
