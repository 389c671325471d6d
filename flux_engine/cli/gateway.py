"""`python -m flux_engine gateway`: the gateway's service, by its settings from the environment."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import uvicorn
from fastapi import FastAPI

from flux_engine.cache.redis_link import CacheAway
from flux_engine.gateway.app import create_app
from flux_engine.gateway.assembly import open_gateway
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.security.terms import NotConfigured
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.logs import set_up_logs
from flux_engine.settings import SettingsError

GRACE_S: Final = 10
KEEP_ALIVE_S: Final = 65  # longer than load balancers keep an idle connection
BACKLOG: Final = 2048


def main(arguments: Sequence[str]) -> int:
    argparse.ArgumentParser(prog="python -m flux_engine gateway", description=__doc__).parse_args(arguments)
    try:
        settings = GatewaySettings.from_environment(os.environ)
        set_up_logs(settings.shared.log_level, as_json=not sys.stderr.isatty())
        signal.signal(signal.SIGTERM, _end_at_once)
        asyncio.run(serve(settings))
    except (SettingsError, NotConfigured) as error:
        return _cannot_start(str(error))
    except CacheAway as error:
        return _cannot_start(f"Redis does not answer ({error}); start it first, or mend REDIS_URL")
    return 0


def _cannot_start(why: str) -> int:
    sys.stderr.write(f"The gateway cannot start: {why}\n")
    return 1


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """While the gateway opens: what the signal does by default, which the kernel keeps from process 1. An exception
    would have to find its way out of the event loop, where a library may swallow it."""
    os._exit(128 + number)


async def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError and NotConfigured; CacheAway where Redis does not come."""
    async with open_gateway(settings) as gateway:
        server = GatewayServer(config_of(settings, create_app(gateway)), gateway)
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises it again once it has served
            signal.signal(number, _heard)
        await server.serve()


def _heard(number: int, frame: FrameType | None) -> None:
    """The server has ended for it, and the gateway is closing: nothing more to do."""


def config_of(settings: GatewaySettings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=",".join(settings.trusted_proxies),
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
    )


class GatewayServer(uvicorn.Server):
    """Uvicorn, which waits for open responses at its end: event streams and waits are ended first."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._gateway.hub.close)
        super().handle_exit(sig, frame)
