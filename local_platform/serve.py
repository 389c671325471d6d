"""The whole system on this machine, by one command: `python -m local_platform.serve` (`make serve`).

A Redis server of its own, a worker with the bundled model on the local platform, and the gateway in front. It prints
the gateway's address and an API key once a picture can be made, and ends every process that it started on Ctrl-C.
PORT is the gateway's port; with QUEUE=celery Celery takes the platform's place; variables of the worker and of the
gateway are passed on.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final, get_args

from flux_engine.cache.embedded import EmbeddedServer
from flux_engine.cache.redis_link import CacheAway, RedisLink, RemoteServer
from flux_engine.cli.gateway import GatewayServer, config_of
from flux_engine.gateway.app import create_app
from flux_engine.gateway.assembly import open_gateway
from flux_engine.gateway.gateway import Gateway
from flux_engine.gateway.seams import Scope
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.logs import set_up_logs
from flux_engine.settings import Settings, SettingsError, default_cache_folder
from local_platform.behind import QueueName, behind
from local_platform.processes import Pool, WorkerDied

HOST: Final = "127.0.0.1"
USER: Final = "local"
SCOPES: Final[frozenset[Scope]] = frozenset(("generate", "read"))
KEY_LASTS_S: Final = 30 * 86_400
NAMESPACE: Final = "serve"
WATCH_S: Final = 0.5
READY_WITHIN_S: Final = 180.0


class CannotServe(Exception):
    """The text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(
            serve(
                options.port,
                queue=options.queue,
                workers=options.workers,
                folder=options.folder,
                is_verbose=options.verbose,
            )
        )
    except (CannotServe, SettingsError, CacheAway) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def serve(
    port: int, *, workers: int, folder: Path, queue: QueueName = "runpod", is_verbose: bool = False
) -> None:
    """Serve until SIGINT or SIGTERM. Raises CannotServe, SettingsError and CacheAway."""
    set_up_logs("INFO" if is_verbose else "WARNING", as_json=False)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _bound(os.environ.get("HOST") or HOST, port) as listener:
        await _serve(listener, stop, workers=workers, folder=folder, queue=queue, is_verbose=is_verbose)


async def _serve(
    listener: socket.socket, stop: asyncio.Event, *, workers: int, folder: Path, queue: QueueName, is_verbose: bool
) -> None:
    redis = EmbeddedServer(folder / "redis")
    redis_url = await redis.url()
    shared = _passed_on() | {"REDIS_URL": redis_url, "CACHE_NAMESPACE": NAMESPACE}
    try:
        environment = shared | {"WARMUP": "eager", "MODEL_VOLUME": os.environ.get("MODEL_VOLUME", str(folder))}
        on_line = _print_line if is_verbose else None
        async with behind(queue, environment, folder=folder, on_line=on_line) as system:
            port = listener.getsockname()[1]
            settings = _gateway_settings({**shared, **system.variables}, port=port, folder=folder)
            key = await _key(redis_url, settings)
            async with open_gateway(settings) as gateway:
                await _run(gateway, system.pool, stop, workers=workers, key=key, listener=listener)
    finally:
        redis.close()


async def _run(
    gateway: Gateway, pool: Pool, stop: asyncio.Event, *, workers: int, key: str, listener: socket.socket
) -> None:
    server = _Server(config_of(gateway.settings, create_app(gateway)), gateway)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    keeping = asyncio.create_task(pool.keep(workers))
    greeting = asyncio.create_task(_greet(gateway, key, has_workers=workers > 0))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, keeping, stopping), return_when=asyncio.FIRST_COMPLETED)
    gateway.hub.close()
    server.should_exit = True
    for task in (keeping, greeting, stopping):
        task.cancel()
    outcomes = await asyncio.gather(serving, keeping, greeting, stopping, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, WorkerDied | TimeoutError):
            raise CannotServe(str(outcome)) from outcome


class _Server(GatewayServer):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Leave signals to `serve`, which has more to end."""
        return nullcontext()


async def _greet(gateway: Gateway, key: str, *, has_workers: bool) -> None:
    """Say where it is, once a worker has loaded its model."""
    if has_workers:
        print("starting a worker with the bundled model ...", flush=True)
    deadline = time.monotonic() + (READY_WITHIN_S if has_workers else 0.0)
    while not await gateway.offers.is_known() and time.monotonic() < deadline:  # noqa: ASYNC110 - a worker tells Redis
        await asyncio.sleep(WATCH_S)
    url = f"http://127.0.0.1:{gateway.settings.port}"
    lines = [
        f"gateway    {url}   (documentation: {url}/docs)",
        f"API key    {key}",
        f"a picture  curl -s {url}/generate-image -H 'Authorization: Bearer {key}' \\",
        "             -H 'Content-Type: application/json' -H 'Prefer: wait=60' "
        '-d \'{"prompt": "a red sun over purple mountains"}\'',
        "Ctrl-C ends everything.",
    ]
    print("\n".join(lines), flush=True)


async def _key(redis_url: str, settings: GatewaySettings) -> str:
    """A new API key of the user `local`."""
    link = RedisLink(RemoteServer(redis_url))
    try:
        key, record = mint(USER, SCOPES, expires_at=time.time() + KEY_LASTS_S)
        await KeyStore(link, root=settings.redis_root).add(record)
    finally:
        await link.close()
    return key.get_secret_value()


def _gateway_settings(shared: Mapping[str, str], *, port: int, folder: Path) -> GatewaySettings:
    own = {name: os.environ[name] for name in GatewaySettings.variables() if os.environ.get(name)}
    return GatewaySettings.from_environment(
        {"HOST": HOST, "GATEWAY_DATA": str(folder), "FLUX_MODEL": "flux-tiny"}
        | own
        | dict(shared)
        | {"PORT": str(port), "GATEWAY_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    )


def _passed_on() -> dict[str, str]:
    names = [name.upper() for name in Settings.model_fields]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _bound(host: str, port: int) -> socket.socket:
    """What the gateway will listen at: `port`, or any free one for 0. Raises CannotServe where another holds it."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotServe(f"port {port} is taken; choose another: PORT={port + 1} make serve") from None
        raise
    return bound


def _print_line(worker: str, line: str) -> None:
    with suppress(BrokenPipeError):
        print(f"{worker} | {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local_platform.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8080), help="0 for any free one")
    parser.add_argument(
        "--queue",
        choices=get_args(QueueName),
        default=os.environ.get("QUEUE") or "runpod",
        help="what feeds the workers",
    )
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default 1); 0 for a gateway alone")
    parser.add_argument(
        "--folder", type=Path, default=default_cache_folder() / "serve", help="what is kept between runs"
    )
    parser.add_argument("--verbose", action="store_true", help="show the workers' logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
