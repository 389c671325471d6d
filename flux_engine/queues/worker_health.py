"""What Kubernetes and Prometheus ask of a Celery worker, over HTTP on a port of its own.

    GET /healthz   200 while its loop turns and its device answers: the liveness and startup probes
    GET /readyz    200 once it takes jobs, 503 with `warming` before: the readiness probe
    GET /metrics   Prometheus's text format

The loop answers, not a thread beside it: a worker whose loop is stuck is dead, and is seen to be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from aiohttp import web

from flux_engine.queues.worker_metrics import WorkerMetrics

Health = Literal["warming", "ready", "broken"]


class WorkerHealth:
    """A small server for one event loop. `health` is asked at each request."""

    def __init__(self, health: Callable[[], Health], metrics: WorkerMetrics, *, port: int) -> None:
        self._health = health
        self._metrics = metrics
        self._port = port
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self._alive), web.get("/readyz", self._ready), web.get("/metrics", self._told)]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> int:
        """Listen; returns the port, which is the one given or, for 0, a free one. Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "0.0.0.0", self._port)  # noqa: S104 - probes come from outside
        await site.start()
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _alive(self, _: web.Request) -> web.Response:
        health = self._health()
        return web.json_response({"status": health}, status=503 if health == "broken" else 200)

    async def _ready(self, _: web.Request) -> web.Response:
        health = self._health()
        return web.json_response({"status": health}, status=200 if health == "ready" else 503)

    async def _told(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})
