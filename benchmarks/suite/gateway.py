"""A task through either gateway to an endpoint whose worker answers at once: what the gateway itself takes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from benchmarks.gateways import GatewayProcess, new_key
from benchmarks.suite.contenders import cpu_s
from benchmarks.suite.samples import Figures, alternating
from local_platform.server import API_KEY, Platform
from tests.servers import RedisProcess, free_port

TASKS: Final = {"ours": 40, "plain": 200}  # a round, of about the same time
CLIENTS: Final = 6
ROUNDS: Final = 8
FILE: Final = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 128  # 33 kB
LOOK_S: Final = 0.02
RESULT: Final = {
    "images": [
        {
            "b64_json": base64.b64encode(FILE).decode(),
            "content_type": "image/png",
            "width": 64,
            "height": 64,
            "seed": 1,
            "sha256": hashlib.sha256(FILE).hexdigest(),
            "bytes": len(FILE),
        }
    ],
    "seed": 1,
    "model": {"id": "flux-tiny", "revision": "1", "precision": "float32"},
    "parameters": {},
    "cached": False,
    "timings": {"total_ms": 1},
    "warnings": [],
}


@dataclass(frozen=True, slots=True)
class Behind:
    """A gateway that answers, how a task is made and looked at, and its process."""

    http: httpx2.AsyncClient
    create: str
    look: str
    pid: int


async def measure(*, rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds until a task is accepted and until it is done, and the gateway's CPU milliseconds a task."""
    with tempfile.TemporaryDirectory() as name:
        redis = RedisProcess(Path(name))
        redis.start()
        try:
            async with (
                Platform() as platform,
                _workers(platform),
                _ours(platform, redis.url, Path(name) / "results") as ours,
                _plain(platform) as plain,
            ):
                two = {"ours": ours, "plain": plain}
                for gateway in two.values():
                    await _tasks(gateway, count=5)
                found = await alternating(
                    ("ours", "plain"), lambda which, _: _tasks(two[which], count=TASKS[which]), rounds=rounds
                )
        finally:
            redis.kill()
    return {"figures": found, "tasks": TASKS, "clients": CLIENTS}


async def _tasks(gateway: Behind, *, count: int) -> Figures:
    spent, accepted, done = cpu_s(gateway.pid), list[float](), list[float]()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            began = time.perf_counter()
            asked = {"prompt": "a red sun", "width": 64, "height": 64, "seed": time.monotonic_ns() % 2**40 + number}
            answer = await gateway.http.post(gateway.create, json=asked)
            answer.raise_for_status()
            accepted.append(time.perf_counter() - began)
            task_id = answer.json()["task_id"]
            while True:
                said = (await gateway.http.get(gateway.look.format(task_id))).json()
                if said["status"] == "completed":
                    break
                if said["status"] == "failed":
                    raise SystemExit(f"a task failed at the gateway: {str(said)[:500]}")
                await asyncio.sleep(LOOK_S)
            done.append(time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return {
        "accepted ms": 1000 * statistics.median(accepted),
        "done ms": 1000 * statistics.median(done),
        "CPU ms a task": 1000 * (cpu_s(gateway.pid) - spent) / count,
    }


@asynccontextmanager
async def _workers(platform: Platform) -> AsyncIterator[None]:
    """Answers every job at once."""
    endpoint = platform.endpoint

    async def answer() -> None:
        while True:
            endpoint.saw("worker", has_asked=True)
            jobs = await endpoint.wait_for(
                lambda: endpoint.queue.take("worker", now=endpoint.now(), count=8) or None, timeout_s=2
            )
            for job in jobs or ():
                endpoint.queue.finish(job.id, {"output": RESULT}, worker="worker", n_bytes=50_000, now=endpoint.now())
            endpoint.changed()

    answering = asyncio.create_task(answer())
    try:
        yield
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering


@asynccontextmanager
async def _ours(platform: Platform, redis_url: str, folder: Path) -> AsyncIterator[Behind]:
    settings = {**_endpoint(platform), "QUEUE": "runpod", "REDIS_URL": redis_url, "CACHE_NAMESPACE": "suite"}
    settings |= {"MAX_REQUESTS_PER_MINUTE": "1000000", "GATEWAY_DATA": str(folder), "PORT": str(free_port())}
    settings["GATEWAY_PUBLIC_URL"] = f"http://127.0.0.1:{settings['PORT']}"  # the queue posts there what has ended
    headers = {"Authorization": f"Bearer {await new_key(settings)}"}  # before the gateway, which demands one
    gateway = await GatewayProcess.start(settings)
    try:
        await gateway.until_ready()
        async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False, timeout=60) as http:
            yield Behind(http, "generate-image", "task/{}/status", gateway.process.pid)
    finally:
        await gateway.terminate()


@asynccontextmanager
async def _plain(platform: Platform) -> AsyncIterator[Behind]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.plain.gateway"),
        env={"PATH": os.environ["PATH"], **_endpoint(platform), "PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            while process.returncode is None:
                with suppress(httpx2.HTTPError):
                    await http.get("docs")
                    break
                await asyncio.sleep(LOOK_S)
            yield Behind(http, "tasks", "tasks/{}", process.pid)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _endpoint(platform: Platform) -> Mapping[str, str]:
    return {
        "RUNPOD_ENDPOINT_ID": platform.endpoint.id,
        "RUNPOD_API_KEY": API_KEY,
        "RUNPOD_ENDPOINT_BASE_URL": platform.client_url,
    }
