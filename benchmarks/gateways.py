"""Gateways in processes of their own, for benchmarks that measure or replace them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import httpx2

from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from flux_engine.gateway.settings import GatewaySettings
from local_platform.processes import REPOSITORY
from tests.servers import free_port

LOOK_S = 0.05

logging.getLogger("httpx2").setLevel("WARNING")  # an import of the SDK lets every request be told


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """One that was started; `url` is where it listens once it is ready."""

    process: asyncio.subprocess.Process
    url: str

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> Self:
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "HOME") if name in os.environ}
        port = environment.get("PORT") or str(free_port())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flux_engine", "gateway"),
            cwd=REPOSITORY,
            env=inherited | dict(environment) | {"HOST": "127.0.0.1", "PORT": port},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return cls(process, f"http://127.0.0.1:{port}")

    async def until_ready(self) -> None:
        """As the readiness probe sees it. Raises RuntimeError where the process ended."""
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
            while self.process.returncode is None:
                with suppress(httpx2.HTTPError):
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(LOOK_S)
        raise RuntimeError(f"the gateway ended with status {self.process.returncode}")

    async def terminate(self) -> int:
        """SIGTERM; its exit status."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


async def new_key(environment: Mapping[str, str], user: str = "benchmark") -> str:
    """A key of `user`, for the gateways of `environment`."""
    settings = GatewaySettings.from_environment(environment)
    link = RedisLink(RemoteServer(environment["REDIS_URL"]))
    try:
        key, record = mint(user, frozenset(("generate", "read")), expires_at=None)
        await KeyStore(link, root=settings.redis_root).add(record)
    finally:
        await link.close()
    return key.get_secret_value()
