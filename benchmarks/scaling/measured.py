"""What a task costs each part, measured with a gateway, a Redis and a Celery worker in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx2
import psutil
from redis.asyncio import Redis

from benchmarks.gateways import GatewayProcess, new_key
from benchmarks.scaling.bucket import puts_a_second
from local_platform.celery_workers import CeleryPool
from tests.servers import RedisProcess

SMALL: Final = {"width": 64, "height": 64, "num_inference_steps": 1}
CLIENTS: Final = 4
RESULT_MB: Final = 1.5  # a PNG of a megapixel
READS: Final = 200
FILE: Final = "file.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds are of one core."""

    gateway_s: float  # a task: created, watched by an event stream, its small result read
    redis_s: float  # the same at the Redis that ledger, queue, limits and cache share
    redis_commands: float
    around_gpu_s: float  # of a worker: a job's time that is not the model's
    gateway_mb_s: float  # results streamed by a gateway that keeps one core busy
    disk_mb_s: float  # results written to a folder, each flushed
    bucket_puts_s: float  # results that an S3 server took in a second

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


async def measure(*, tasks: int) -> Costs:
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        redis = RedisProcess(folder)
        redis.start()
        try:
            environment = {
                "QUEUE": "celery",
                "REDIS_URL": redis.url,
                "CACHE_NAMESPACE": "scaling",
                "CELERY_FOLDER": str(folder / "parcels"),
                "GATEWAY_DATA": str(folder / "results"),
                "MODEL_VOLUME": str(folder / "volume"),
                "FLUX_MODEL": "flux-tiny",
                "WARMUP": "eager",
                "OMP_NUM_THREADS": "1",
            }
            async with CeleryPool(environment=environment) as pool:
                await pool.start(1)
                return await with_gateway(environment, folder, tasks=tasks)
        finally:
            redis.kill()


async def with_gateway(environment: Mapping[str, str], folder: Path, *, tasks: int) -> Costs:
    headers = {"Authorization": f"Bearer {await new_key(environment)}"}
    started = await GatewayProcess.start(environment)
    try:
        await started.until_ready()
        gateway = psutil.Process(started.process.pid)
        async with httpx2.AsyncClient(base_url=started.url, headers=headers, timeout=120, trust_env=False) as http:
            around, used = await run_tasks(http, gateway, environment["REDIS_URL"], tasks=tasks)
            streamed = await stream_results(http, gateway)
    finally:
        await started.terminate()
    puts_s = await puts_a_second(int(RESULT_MB * 1e6))
    disk = disk_mb_s(folder)
    return Costs(around_gpu_s=around, gateway_mb_s=streamed, disk_mb_s=disk, bucket_puts_s=puts_s, **used)


async def run_tasks(
    http: httpx2.AsyncClient, gateway: psutil.Process, redis_url: str, *, tasks: int
) -> tuple[float, dict[str, float]]:
    """Seconds of a job around its GPU time, and what a task takes of gateway and Redis."""
    await run_one(http, seed=10**6)  # the first loads the model
    server = Redis.from_url(redis_url)
    redis_before, gateway_before = await redis_use(server), cpu_s(gateway)
    free = asyncio.Semaphore(CLIENTS)

    async def run(seed: int) -> float:
        async with free:
            return await run_one(http, seed=seed)

    around = await asyncio.gather(*(run(seed) for seed in range(tasks)))
    redis_after = await redis_use(server)
    await server.aclose()
    return sum(around) / tasks, {
        "gateway_s": (cpu_s(gateway) - gateway_before) / tasks,
        "redis_s": (redis_after["cpu_s"] - redis_before["cpu_s"]) / tasks,
        "redis_commands": (redis_after["commands"] - redis_before["commands"]) / tasks,
    }


async def run_one(http: httpx2.AsyncClient, *, seed: int) -> float:
    """As a client does it: create, watch the stream to its end, fetch the picture. Seconds around the GPU's own."""
    made = (await http.post("generate-image", json={"prompt": "a red sun", "seed": seed, **SMALL})).raise_for_status()
    task_id = made.json()["task_id"]
    async with http.stream("GET", f"task/{task_id}/events") as events:
        async for _ in events.aiter_lines():
            pass
    (await http.get(f"task/{task_id}/result")).raise_for_status()
    ended: dict[str, Any] = (await http.get(f"task/{task_id}/status")).json()
    timings = ended["result"]["timings"]
    return float(timings["total_ms"] - timings["denoise_ms"] - timings["text_ms"] - timings["load_ms"]) / 1000


async def stream_results(http: httpx2.AsyncClient, gateway: psutil.Process) -> float:
    """Megabytes of results for each second of the gateway's core."""
    fields = {"prompt": "a lake", "width": 256, "height": 256, "num_inference_steps": 1, "num_images": 1}
    made = (await http.post("generate-image", json=fields, headers={"Prefer": "wait=60"})).raise_for_status()
    url = f"task/{made.json()['task_id']}/result"
    before, sent = cpu_s(gateway), 0
    for _ in range(READS):
        sent += len((await http.get(url)).content)
    return sent / 1e6 / (cpu_s(gateway) - before)


def disk_mb_s(folder: Path) -> float:
    data = os.urandom(int(RESULT_MB * 1e6))
    began = time.monotonic()
    for _ in range(50):
        with (folder / FILE).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    return 50 * RESULT_MB / (time.monotonic() - began)


async def redis_use(server: Redis) -> dict[str, float]:
    said = await server.info()
    return {
        "cpu_s": float(said["used_cpu_sys"]) + float(said["used_cpu_user"]),
        "commands": float(said["total_commands_processed"]),
    }


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
