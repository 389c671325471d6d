"""Real servers for the tests, on loopback, that can be killed, frozen and started again on the same address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from email.message import Message
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from redis.asyncio import Redis

from flux_engine.cache.embedded import wheel_program
from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import Bucket, TimeBounds

ACCESS_KEY = "AKIDTESTACCESSKEY"
SECRET_KEY = "secret-that-no-log-may-hold"
PATIENT = TimeBounds(connect_s=30, read_s=60, upload_s=120, lookup_s=120, attempts=2)
QUICK = TimeBounds(connect_s=0.5, read_s=2.0, upload_s=5.0, lookup_s=3.0, attempts=2)  # for a server that hangs
PORTS_KEPT: Final = 200
_kept: Final[deque[int]] = deque()


def free_port() -> int:
    """A port that this process keeps: bound, so that no other one is given it before its server begins or while that
    is away, and not listened at, so that the server may be: each with SO_REUSEADDR."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        _kept.append(taken.detach())
    if len(_kept) > PORTS_KEPT:
        os.close(_kept.popleft())
    return port


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.port = port
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "AWS_EC2_METADATA_DISABLED": "true"}
        with (self._folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=environment, stdout=output, stderr=output
            )
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "output.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class RedisProcess(ServerProcess):
    """Valkey on TCP, with its data in an append-only file, so that a restart keeps it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"]
        super().__init__([str(wheel_program()), *options, "--save", ""], port, folder)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def refuse_writes(self, way: str) -> None:
        """`full` or `read-only`."""
        async with Redis.from_url(self.url) as client:
            if way == "full":
                await client.config_set("maxmemory", "1")
            else:
                await client.replicaof("127.0.0.1", "1")

    async def take_writes(self) -> None:
        async with Redis.from_url(self.url) as client:
            await client.config_set("maxmemory", "0")
            await client.replicaof("NO", "ONE")


class S3Process(ServerProcess):
    """moto's S3 over HTTP; it forgets everything when it is killed."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        super().__init__([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        super().start()
        self.create_bucket("pictures")

    def create_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=300) as response:
            assert response.status == 200

    def store(
        self,
        *,
        bucket: str = "pictures",
        prefix: str = "flux",
        public_url: str | None = None,
        bounds: TimeBounds = PATIENT,
    ) -> BucketStore:
        reached = Bucket(
            endpoint_url=self.url,
            name=bucket,
            region="us-east-1",
            access_key_id=SecretStr(ACCESS_KEY),
            secret_access_key=SecretStr(SECRET_KEY),
            prefix=prefix,
            public_url=public_url,
            url_expiry_s=3600,
        )
        return BucketStore(reached, bounds=bounds)


def fetched(url: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers (names in lower case) of a GET, as any client would do it."""
    try:
        with urllib.request.urlopen(url, timeout=300) as response:
            return response.status, response.read(), _headers(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), _headers(error.headers)


def _headers(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
