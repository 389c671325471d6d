"""The side of the platform that a worker's SDK talks to: take, stop, result, progress, stream and ping.

Paths and parameters are those of the SDK 1.12.0; see `Platform.worker_environment` for how a worker learns them.
"""

from __future__ import annotations

import json
from typing import Final, NoReturn

from aiohttp import web

from local_platform.endpoint import Endpoint
from local_platform.job import Job

NO_JOB: Final = 204


class WorkerApi:
    """Routes of one endpoint below `/v2/ID/`. `poll_s`: how long a take or stop without an answer is held."""

    def __init__(self, endpoint: Endpoint, *, poll_s: float) -> None:
        self._endpoint = endpoint
        self._poll_s = poll_s

    def routes(self) -> list[web.RouteDef]:
        base = f"/v2/{self._endpoint.id}"
        return [
            web.get(base + "/job-take/{worker}", self.take, name="job-take"),
            web.get(base + "/job-take-batch/{worker}", self.take_batch, name="job-take-batch"),
            web.get(base + "/job-stop/{worker}", self.stop, name="job-stop"),
            web.post(base + "/job-done/{worker}/{job}", self.done, name="job-done"),
            web.post(base + "/job-stream/{worker}/{job}", self.stream, name="job-stream"),
            web.get(base + "/ping/{worker}", self.ping, name="ping"),
        ]

    async def take(self, request: web.Request) -> web.Response:
        jobs = await self._take(request, count=1)
        return web.json_response(jobs[0].to_worker()) if jobs else web.Response(status=NO_JOB)

    async def take_batch(self, request: web.Request) -> web.Response:
        count = int(request.query.get("batch_size", "1"))
        jobs = await self._take(request, count=count)
        return web.json_response([job.to_worker() for job in jobs]) if jobs else web.Response(status=NO_JOB)

    async def stop(self, request: web.Request) -> web.Response:
        worker = request.match_info["worker"]
        self._endpoint.saw(worker)
        ids = await self._endpoint.wait_for(
            lambda: self._endpoint.queue.take_stops(worker) or None if _is_connected(request) else [],
            timeout_s=self._poll_s,
        )
        return web.json_response({"jobsToStop": ids}) if ids else web.Response(status=NO_JOB)

    async def done(self, request: web.Request) -> web.Response:
        """A result, or progress where the body says IN_PROGRESS."""
        raw, body = await _json_body(request)
        worker, job_id = request.match_info["worker"], request.match_info["job"]
        self._endpoint.saw(worker)
        now = self._endpoint.now()
        if body.get("status") == "IN_PROGRESS":
            is_taken = len(raw) <= self._endpoint.queue.limits.part_max_bytes
            if is_taken:
                self._endpoint.queue.progress(job_id, body.get("output"), worker=worker, now=now)
        else:
            is_taken = self._endpoint.queue.finish(job_id, body, worker=worker, n_bytes=len(raw), now=now)
            if body.get("stopPod"):
                self._endpoint.stop_worker(worker)
        self._endpoint.changed()
        return _answer(is_taken)

    async def stream(self, request: web.Request) -> web.Response:
        raw, body = await _json_body(request)
        is_taken = self._endpoint.queue.add_part(
            request.match_info["job"],
            body.get("output"),
            worker=request.match_info["worker"],
            n_bytes=len(raw),
            now=self._endpoint.now(),
        )
        self._endpoint.changed()
        return _answer(is_taken)

    async def ping(self, request: web.Request) -> web.Response:
        """A heartbeat; a failed fitness check reports itself by one as well."""
        worker = request.match_info["worker"]
        if request.query.get("status") == "unhealthy":
            reason = f"{request.query.get('check')}: {request.query.get('reason')}"
            self._endpoint.saw(worker, unhealthy=reason)
        else:
            self._endpoint.saw(worker)
            job_ids = request.query.get("job_id", "").split(",")
            self._endpoint.queue.renew(worker, job_ids, now=self._endpoint.now())
        return web.json_response({})

    async def _take(self, request: web.Request, *, count: int) -> list[Job]:
        worker = request.match_info["worker"]
        self._endpoint.asks(worker, is_asking=True)
        try:
            return await self._endpoint.wait_for(lambda: self._attempt(request, count), timeout_s=self._poll_s) or []
        finally:
            self._endpoint.asks(worker, is_asking=False)

    def _attempt(self, request: web.Request, count: int) -> list[Job] | None:
        """Jobs for a worker that still listens; an empty list ends the wait."""
        worker = request.match_info["worker"]
        if not _is_connected(request):
            return []
        seen = self._endpoint.worker(worker)
        if seen is not None and seen.is_to_stop:
            return None
        return self._endpoint.queue.take(worker, now=self._endpoint.now(), count=count) or None


def _is_connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


async def _json_body(request: web.Request) -> tuple[bytes, dict[str, object]]:
    """The body as bytes and as the JSON object it holds. Answers 400 to anything else, NaN and infinity included."""
    raw = await request.read()
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="not a JSON object")
    return raw, body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _answer(is_taken: bool) -> web.Response:
    return web.json_response({}) if is_taken else web.json_response({"error": "payload too large"}, status=400)
