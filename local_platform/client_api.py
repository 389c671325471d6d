"""The side of the platform that clients talk to: `/v2/ID/run` and its companions.

Every answer is JSON; an error is `{"error": text}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from local_platform.endpoint import Endpoint
from local_platform.job import Job
from local_platform.queue import NotAllowed, UnknownJob

PASSED_ON: Final = ("input", "webhook", "policy", "s3Config")
MIN_EXECUTION_TIMEOUT_MS: Final = 5_000
TTL_MS: Final = (10_000, 7 * 86_400_000)
WAIT_MS: Final = (1_000, 300_000)
STREAM_WAIT_S: Final = 2.0


class ClientApi:
    """Routes of one endpoint below `/v2/ID/`. `sync_wait_s`: how long `/runsync` waits for the result."""

    def __init__(self, endpoint: Endpoint, *, sync_wait_s: float) -> None:
        self._endpoint = endpoint
        self._sync_wait_s = sync_wait_s

    def routes(self) -> list[web.RouteDef]:
        base = f"/v2/{self._endpoint.id}"
        return [
            web.post(base + "/run", self.run, name="run"),
            web.post(base + "/runsync", self.runsync, name="runsync"),
            web.get(base + "/status/{job}", self.status, name="status"),
            web.post(base + "/status/{job}", self.status),
            web.get(base + "/stream/{job}", self.stream, name="stream"),
            web.post(base + "/stream/{job}", self.stream),
            web.post(base + "/cancel/{job}", self.cancel, name="cancel"),
            web.post(base + "/retry/{job}", self.retry, name="retry"),
            web.post(base + "/purge-queue", self.purge, name="purge-queue"),
            web.get(base + "/health", self.health, name="health"),
        ]

    async def run(self, request: web.Request) -> web.Response:
        return _brief(await self._submit(request, is_sync=False))

    async def runsync(self, request: web.Request) -> web.Response:
        wait_s = _wait_s(request, self._sync_wait_s)
        job = await self._submit(request, is_sync=True)
        return self._full(await self._endpoint.finished(job.id, timeout_s=wait_s))

    async def status(self, request: web.Request) -> web.Response:
        return self._full(self._endpoint.queue[request.match_info["job"]])

    async def stream(self, request: web.Request) -> web.Response:
        """The parts since the last call, as soon as there are any."""
        job_id = request.match_info["job"]
        await self._endpoint.wait_for(lambda: self._has_news(job_id), timeout_s=STREAM_WAIT_S)
        parts = self._endpoint.queue.read_parts(job_id)
        status = str(self._endpoint.queue[job_id].status)
        return web.json_response({"status": status, "stream": [{"output": part} for part in parts]})

    async def cancel(self, request: web.Request) -> web.Response:
        return _brief(self._endpoint.cancel(request.match_info["job"]))

    async def retry(self, request: web.Request) -> web.Response:
        job = self._endpoint.queue.retry(request.match_info["job"], now=self._endpoint.now())
        self._endpoint.changed()
        return _brief(job)

    async def purge(self, request: web.Request) -> web.Response:
        removed = self._endpoint.queue.purge(now=self._endpoint.now())
        self._endpoint.changed()
        return web.json_response({"removed": removed, "status": "completed"})

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoint.health())

    async def _submit(self, request: web.Request, *, is_sync: bool) -> Job:
        raw = await request.read()
        most = self._endpoint.queue.limits.max_bytes(is_sync=is_sync)
        if len(raw) > most:
            raise refusal(400, f"the request has {len(raw)} bytes; at most {most} are taken")
        body = _parse(raw)
        policy = _policy(body)
        return self._endpoint.submit(
            {name: body[name] for name in PASSED_ON if name in body},
            is_sync=is_sync,
            execution_timeout_s=policy.execution_timeout_s,
            ttl_s=policy.ttl_s,
        )

    def _full(self, job: Job) -> web.Response:
        return web.json_response(job.to_client(self._endpoint.now()))

    def _has_news(self, job_id: str) -> bool | None:
        job = self._endpoint.queue[job_id]
        return True if job.status.is_final or len(job.parts) > job.parts_read else None


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What a client did wrong, as the platform says it."""
    if not request.headers.get("Authorization"):
        raise refusal(401, "an API key is needed: send Authorization: Bearer KEY")
    try:
        return await handler(request)
    except UnknownJob:
        raise refusal(404, "no such job, or its result has expired") from None
    except NotAllowed as error:
        raise refusal(400, str(error)) from None


def refusal(status: int, message: str) -> web.HTTPException:
    """An exception that answers `status` with a JSON error."""
    kinds = {400: web.HTTPBadRequest, 401: web.HTTPUnauthorized, 404: web.HTTPNotFound}
    return kinds[status](text=json.dumps({"error": message}), content_type="application/json")


@dataclass(frozen=True, slots=True)
class _Policy:
    execution_timeout_s: float | None
    ttl_s: float | None


def _parse(raw: bytes) -> Mapping[str, object]:
    try:
        body = json.loads(raw)
    except ValueError:
        raise refusal(400, "the request must be JSON") from None
    if not isinstance(body, dict) or body.get("input") is None:
        raise refusal(400, "the request must be a JSON object with `input`")
    return body


def _policy(body: Mapping[str, object]) -> _Policy:
    policy = body.get("policy")
    if policy is None:
        return _Policy(None, None)
    if not isinstance(policy, Mapping):
        raise refusal(400, "`policy` must be a JSON object")
    timeout_ms, ttl_ms = _number(policy, "executionTimeout"), _number(policy, "ttl")
    if timeout_ms is not None and timeout_ms <= MIN_EXECUTION_TIMEOUT_MS:
        raise refusal(400, f"`policy.executionTimeout` must be above {MIN_EXECUTION_TIMEOUT_MS} ms")
    if ttl_ms is not None and not TTL_MS[0] <= ttl_ms <= TTL_MS[1]:
        raise refusal(400, f"`policy.ttl` must be from {TTL_MS[0]} to {TTL_MS[1]} ms")
    return _Policy(timeout_ms and timeout_ms / 1000, ttl_ms and ttl_ms / 1000)


def _number(policy: Mapping[object, object], name: str) -> float | None:
    value = policy.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise refusal(400, f"`policy.{name}` must be a number of milliseconds")
    return value


def _wait_s(request: web.Request, default_s: float) -> float:
    """The `?wait=` of `/runsync`, given in milliseconds."""
    given = request.query.get("wait")
    if given is None:
        return default_s
    if not given.isdigit() or not WAIT_MS[0] <= int(given) <= WAIT_MS[1]:
        raise refusal(400, f"`wait` must be from {WAIT_MS[0]} to {WAIT_MS[1]} ms")
    return int(given) / 1000


def _brief(job: Job) -> web.Response:
    return web.json_response({"id": job.id, "status": str(job.status)})
