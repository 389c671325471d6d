"""A bucket that keeps what it is given in memory and takes its time over every upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def slow_bucket(delay_s: float) -> AsyncIterator[dict[str, str]]:
    """The settings of workers that store their results there."""
    kept: dict[str, bytes] = {}

    async def put(request: web.Request) -> web.Response:
        kept[request.path] = await request.read()
        await asyncio.sleep(delay_s)
        return web.Response(headers={"ETag": '"0"'})

    async def get(request: web.Request) -> web.Response:  # and HEAD
        data = kept.get(request.path)
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def delete(request: web.Request) -> web.Response:
        kept.pop(request.path, None)
        return web.Response(status=204)

    app = web.Application(client_max_size=2**26)
    app.router.add_put("/{path:.*}", put)
    app.router.add_get("/{path:.*}", get)
    app.router.add_delete("/{path:.*}", delete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield {
            "BUCKET_ENDPOINT_URL": f"http://127.0.0.1:{runner.addresses[0][1]}",
            "BUCKET_NAME": "results",
            "BUCKET_ACCESS_KEY_ID": "local",
            "BUCKET_SECRET_ACCESS_KEY": "local",
            "BUCKET_REGION": "local",
        }
    finally:
        await runner.cleanup()
