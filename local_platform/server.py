"""A stand-in for RunPod on the loopback interface: one endpoint, both sides of it, over HTTP.

    async with Platform() as platform:
        platform.client_url                     # what takes the place of the platform's public base URL
        platform.worker_environment("worker-1") # what makes the real SDK work for it

Not covered: scaling, several endpoints, rate limits, and who may use which API key (any non-empty one will do).
"""

from __future__ import annotations

import asyncio
from typing import Final, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from local_platform.client_api import ClientApi, answer_errors
from local_platform.endpoint import Endpoint
from local_platform.faults import STATUS_FAULTS, FaultPlan, Faults, arm_reset
from local_platform.job import Limits
from local_platform.openai_api import OpenAIApi
from local_platform.webhooks import Webhooks
from local_platform.worker_api import WorkerApi

API_KEY: Final = "local"
MAX_BODY_BYTES: Final = 64 * 1024**2
CLOSE_AFTER_S: Final = 0.05


class Platform:
    """The server. All times are seconds.

    `poll_s`: how long a take or stop is held open. `keepalive_s`: after how long an idle connection is closed.
    `id_seed`: makes the ids of jobs the same in every run. `tick_s`: how exactly time-outs are kept.
    """

    def __init__(
        self,
        endpoint_id: str = "local",
        *,
        port: int = 0,
        limits: Limits | None = None,
        faults: FaultPlan | None = None,
        poll_s: float = 15,
        sync_wait_s: float = 90,
        keepalive_s: float = 75,
        webhook_retry_s: float = 10,
        tick_s: float = 0.1,
        id_seed: int | None = None,
    ) -> None:
        self.endpoint: Final = Endpoint(endpoint_id, limits=limits, id_seed=id_seed)
        self.faults: Final = Faults(faults)
        self._port = port
        self._tick_s = tick_s
        self._webhooks = Webhooks(self.endpoint, retry_s=webhook_retry_s)
        app = web.Application(middlewares=[self._inject, answer_errors], client_max_size=MAX_BODY_BYTES)
        app.add_routes(WorkerApi(self.endpoint, poll_s=poll_s).routes())
        app.add_routes(ClientApi(self.endpoint, sync_wait_s=sync_wait_s).routes())
        app.add_routes(OpenAIApi(self.endpoint).routes())
        self._runner = web.AppRunner(app, keepalive_timeout=keepalive_s, shutdown_timeout=0.5, access_log=None)
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._webhooks.close()
        await self._runner.cleanup()

    @property
    def openai_url(self) -> str:
        """Base URL of OpenAI's clients."""
        return f"{self.client_url}/{self.endpoint.id}/openai/v1"

    @property
    def client_url(self) -> str:
        """Base URL of clients: `RUNPOD_ENDPOINT_BASE_URL`, or `runpod.endpoint_url_base`."""
        return f"http://127.0.0.1:{self._port}/v2"

    def worker_environment(self, worker: str, *, ping_interval_s: int = 1) -> dict[str, str]:
        """The variables by which RunPod tells a worker where the platform is. The query strings are needed: the SDK
        adds to them."""
        base = f"{self.client_url}/{self.endpoint.id}"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=none",
            "RUNPOD_PING_INTERVAL": str(ping_interval_s * 1000),
            "RUNPOD_AI_API_KEY": API_KEY,
            "RUNPOD_POD_ID": worker,
            "RUNPOD_POD_HOSTNAME": f"{worker}-host",
            "RUNPOD_ENDPOINT_ID": self.endpoint.id,
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self.endpoint.queue.expire(now=self.endpoint.now())
            for job in self.endpoint.queue.drain_final():
                self._webhooks.send(job)
            self.endpoint.changed()  # also lets a poll notice that its worker has hung up

    @web.middleware
    async def _inject(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Strike the request by the fault that is due, if any."""
        kind = self.faults.draw(request.match_info.route.name or "")
        if kind is not None and kind in STATUS_FAULTS:
            await request.read()
            return web.Response(status=int(kind), text="a fault, on demand")
        if kind == "reset":
            return _reset(request)
        if kind == "slow":
            await request.read()  # it has arrived, and is acted on even if its sender gives up meanwhile
            await asyncio.sleep(self.faults.plan.slow_s)
        response = await handler(request)
        if kind == "lost_answer":
            return _reset(request)
        if kind == "close" and request.transport is not None:
            asyncio.get_running_loop().call_later(CLOSE_AFTER_S, request.transport.close)
        return response


def _reset(request: web.Request) -> web.Response:
    """Reset the connection; the response that is returned reaches nobody."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        if connection is not None:
            arm_reset(connection)
        request.transport.abort()
    return web.Response()
