"""A bucket that keeps what it is given in memory and takes its time over every upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def slow_bucket(delay_s: float) -> AsyncIterator[dict[str, str]]:
    """The settings of workers that store their results there."""
    sizes: dict[str, int] = {}

    async def put(request: web.Request) -> web.Response:
        sizes[request.path] = len(await request.read())
        await asyncio.sleep(delay_s)
        return web.Response(headers={"ETag": '"0"'})

    async def head(request: web.Request) -> web.Response:
        size = sizes.get(request.path)
        return web.Response(status=404) if size is None else web.Response(headers={"Content-Length": str(size)})

    app = web.Application(client_max_size=2**26)
    app.router.add_put("/{path:.*}", put)
    app.router.add_route("HEAD", "/{path:.*}", head)
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
