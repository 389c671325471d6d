"""The processes of a storm: Redis, a bucket, two gateways, and workers behind either queue.

A kill is SIGKILL, and what was killed comes back a moment later on its old address. The bucket is the one part that no
deployment has to keep alive itself: it stays.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Self

import httpx2
import psutil

from flux_engine.cache.notices import Notices
from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.settings import GatewaySettings
from tests.servers import ACCESS_KEY, SECRET_KEY, RedisProcess, S3Process, free_port

ROOT: Final = Path(__file__).parents[3]
Queue = Literal["runpod", "celery"]
Victim = Literal["gateway", "redis", "platform", "worker"]
VICTIMS: Final[dict[Queue, tuple[Victim, ...]]] = {
    "runpod": ("gateway", "redis", "platform", "worker"),
    "celery": ("gateway", "redis", "worker"),
}
GATEWAYS: Final = 2
NAMESPACE: Final = "chaos"
READY_S: Final = 180.0
LOOK_S: Final = 0.1
CELERY_WORKER: Final = (
    *("-m", "celery", "-A", "flux_engine.queues.celery_worker", "worker", "--pool", "threads", "--concurrency", "1"),
    *("--without-gossip", "--without-mingle"),
)


class System:
    """An async context manager; nothing is left of its processes afterwards."""

    def __init__(self, folder: Path, *, queue: Queue, workers: int, chance: random.Random) -> None:
        self._folder = folder
        self._queue = queue
        self._workers = workers
        self._random = chance
        self._ports = [free_port() for _ in range(GATEWAYS)]
        self._platform_port = free_port()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        for name in ("redis", "bucket", "volume"):
            (folder / name).mkdir(parents=True)
        self.redis: Final = RedisProcess(folder / "redis")
        self.bucket: Final = S3Process(folder / "bucket")

    async def __aenter__(self) -> Self:
        await asyncio.gather(asyncio.to_thread(self.redis.start), asyncio.to_thread(self.bucket.start))
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            await _end(process)
        self.redis.kill()
        self.bucket.kill()

    async def start(self) -> None:
        """Everything but Redis and the bucket, which run by then. Raises TimeoutError."""
        if self._queue == "runpod":
            await self._start_platform()
        else:
            await asyncio.gather(*(self._start_celery_worker(which) for which in range(self._workers)))
        await asyncio.gather(*(self._start_gateway(which) for which in range(GATEWAYS)))
        await self._until_ready()

    def url(self) -> str:
        """One of the gateways."""
        return f"http://127.0.0.1:{self._random.choice(self._ports)}"

    def settings(self) -> GatewaySettings:
        return GatewaySettings.from_environment(self._gateway_environment(0))

    def worker_log(self) -> str:
        """What all workers have printed."""
        name = "platform" if self._queue == "runpod" else "worker-*"
        return "\n".join(path.read_text(errors="replace") for path in sorted(self._folder.glob(f"{name}.log")))

    def bucket_log(self) -> str:
        """Every request that the bucket has answered."""
        return (self._folder / "bucket" / "output.log").read_text(errors="replace")

    async def kill(self, victim: Victim, *, back_after_s: float) -> None:
        if victim == "redis":
            self.redis.kill()
            await asyncio.sleep(back_after_s)
            await asyncio.to_thread(self.redis.start)
        elif victim == "gateway":
            which = self._random.randrange(GATEWAYS)
            await _end(self._processes[f"gateway-{which}"])
            await asyncio.sleep(back_after_s)
            await self._start_gateway(which)
        elif victim == "platform":
            await _end(self._processes["platform"])
            await asyncio.sleep(back_after_s)
            await self._start_platform()
        elif self._queue == "runpod":
            self._kill_platform_worker()
        else:
            which = self._random.randrange(self._workers)
            await _end(self._processes[f"worker-{which}"])
            await asyncio.sleep(back_after_s)
            await self._start_celery_worker(which)

    def _kill_platform_worker(self) -> None:
        """The platform starts another."""
        with suppress(psutil.Error):
            children = psutil.Process(self._processes["platform"].pid).children(recursive=True)
            workers = [child for child in children if "handler.py" in " ".join(child.cmdline())]
            if workers:
                os.killpg(os.getpgid(self._random.choice(workers).pid), signal.SIGKILL)

    # --------------------------------------------------------------------------------- environment

    def _environment(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.redis.url,
            "CACHE_NAMESPACE": NAMESPACE,
            "BUCKET_ENDPOINT_URL": self.bucket.url,
            "BUCKET_NAME": "pictures",
            "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
            "FLUX_MODEL": "flux-tiny",
            "WARMUP": "eager",
            "LOG_LEVEL": "DEBUG",
            "MODEL_VOLUME": str(self._folder / "volume"),
            "OMP_NUM_THREADS": "1",
            "CELERY_FOLDER": str(self._folder / "parcels"),
            "CELERY_LEASE_SECONDS": "5",
            "CELERY_HEALTH_PORT": "0",
        }

    def _gateway_environment(self, which: int) -> dict[str, str]:
        return self._environment() | {
            "QUEUE": self._queue,
            "HOST": "127.0.0.1",
            "PORT": str(self._ports[which]),
            "GATEWAY_DATA": str(self._folder / "gateway"),
            "GATEWAY_SECRET": "chaos" * 8,
            "RUNPOD_ENDPOINT_ID": "local",
            "RUNPOD_API_KEY": "local",
            "RUNPOD_ENDPOINT_BASE_URL": f"http://127.0.0.1:{self._platform_port}/v2",
            "TASK_MAX_ATTEMPTS": "50",
        }

    # ----------------------------------------------------------------------------------- processes

    async def _start_gateway(self, which: int) -> None:
        await self._start(f"gateway-{which}", ["-m", "flux_engine", "gateway"], self._gateway_environment(which))

    async def _start_platform(self) -> None:
        options = ["--workers", str(self._workers), "--port", str(self._platform_port), "--lease", "5"]
        await self._start("platform", ["-m", "local_platform", *options], self._environment())

    async def _start_celery_worker(self, which: int) -> None:
        await self._start(f"worker-{which}", CELERY_WORKER, self._environment())

    async def _start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        inherited = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        with (self._folder / f"{name}.log").open("ab") as output:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=ROOT,
                env=inherited | {"HOME": str(self._folder)} | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        """Every gateway answers, and a worker has said what it makes."""
        deadline = time.monotonic() + READY_S
        async with httpx2.AsyncClient(trust_env=False) as http:
            for port in self._ports:
                while True:
                    with suppress(httpx2.HTTPError):
                        if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                            break
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"the gateway on {port} is not ready; see {self._folder}")
                    await asyncio.sleep(LOOK_S)
        link = RedisLink(RemoteServer(self.redis.url))
        while await Notices(link, namespace=NAMESPACE).current_offer() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no worker is ready; see {self._folder}")
            await asyncio.sleep(LOOK_S)
        await link.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
