"""One gateway under load: how many answers a second, and how long each takes.

    python -m benchmarks.gateway_load --clients 200 --seconds 8 --streams 1000

Creations that the cache answers while no worker is there, status reads, results, creations of new tasks; then event
streams at one event a second, and SIGTERM while they are open. The gateway and Redis are processes of their own on this
machine; the clients and the queue are another, whose share of the machine is missing to the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

from benchmarks.fleet import table
from flux_engine.cache.notices import Notices
from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.job.fingerprint import ModelIdentity
from local_platform.server import Platform
from tests.gateway.world import SUN, Hand, settings_of
from tests.servers import RedisProcess, free_port

TOTAL: Final = re.compile(r"total;dur=([0-9.]+)")
PLENTY: Final = "1000000000"
CREATED: Final = 202
MIB: Final = 1024 * 1024

Ask = Callable[[aiohttp.ClientSession, int], Awaitable[aiohttp.ClientResponse]]


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway in a process of its own, and one finished task."""

    url: str
    process: psutil.Process
    headers: dict[str, str]
    task_id: str
    hand: Hand


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=8, help="of each kind of request")
    parser.add_argument("--streams", type=int, default=1000)
    options = parser.parse_args()
    soft = 4 * options.streams + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="gateway-load-") as folder:
        async with served(Path(folder) / "requests") as gateway:
            kinds: dict[str, Ask] = {
                "cached results": lambda http, _: http.post("/generate-image", json=SUN | {"seed": 1}),
                "status reads": lambda http, _: http.get(f"/task/{gateway.task_id}/status"),
                "results": lambda http, _: http.get(f"/task/{gateway.task_id}/result"),
                "creations": lambda http, number: http.post("/generate-image", json=SUN | {"seed": number}),
            }
            rows = [await asked(gateway, name, ask, options) for name, ask in kinds.items()]
            head = ("", "a second", "p50 ms", "p99 ms", "in the gateway p50 ms", "p99 ms", "its CPU ms", "refused")
            print(table(head, rows), flush=True)
        async with served(Path(folder) / "streams") as gateway:
            print(table(("", "measured"), await streamed(gateway, options.streams)))


# ------------------------------------------------------------------------------------------------------------ requests


async def asked(gateway: Served, name: str, ask: Ask, options: argparse.Namespace) -> tuple[str, ...]:
    """`options.clients` clients, each with its next request as soon as it has the answer to its last."""
    took: list[float] = []
    refused = 0
    within: list[float] = []
    ends = time.perf_counter() + options.seconds
    connector = aiohttp.TCPConnector(limit=0)

    async def client(number: int) -> None:
        nonlocal refused
        while time.perf_counter() < ends:
            began = time.perf_counter()
            async with await ask(http, 10_000 + number) as answer:
                await answer.read()
            if not answer.ok:  # 503: Redis answers too slowly, on a machine that has no time for it
                refused += 1
                continue
            took.append((time.perf_counter() - began) * 1000)
            found = TOTAL.search(answer.headers["Server-Timing"])
            within.append(float(found[1]) if found is not None else math.nan)
            number += options.clients

    async with aiohttp.ClientSession(gateway.url, headers=gateway.headers, connector=connector) as http:
        began, cpu = time.perf_counter(), _cpu_s(gateway.process)
        await asyncio.gather(*(client(number) for number in range(options.clients)))
        seconds, cpu = time.perf_counter() - began, _cpu_s(gateway.process) - cpu
        quiet = [await _within(http, ask, -1 - number) for number in range(20)] if name == "cached results" else []
    if quiet:
        print(f"cached results, one client: {_share(quiet, 0.5):.1f} ms in the gateway, at most {max(quiet):.1f} ms")
    figures = [len(took) / seconds, *(_share(values, share) for values in (took, within) for share in (0.5, 0.99))]
    cpu_ms = 1000 * cpu / max(1, len(took) + refused)
    return (name, f"{figures[0]:.0f}", *(f"{figure:.1f}" for figure in figures[1:]), f"{cpu_ms:.1f}", str(refused))


async def _within(http: aiohttp.ClientSession, ask: Ask, number: int) -> float:
    """Milliseconds that the gateway says it took."""
    async with await ask(http, number) as answer:
        await answer.read()
        found = TOTAL.search(answer.headers["Server-Timing"])
        return float(found[1]) if found is not None else math.nan


# ------------------------------------------------------------------------------------------------------------- streams


async def streamed(gateway: Served, count: int) -> list[tuple[str, str]]:
    """`count` watchers of one task that tells progress each second; then SIGTERM."""
    connector = aiohttp.TCPConnector(limit=0)
    heard = [0] * count
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        gateway.url, headers=gateway.headers, connector=connector, timeout=timeout
    ) as http:
        async with http.post("/generate-image", json=SUN | {"seed": 999, "cache": False}) as answer:
            task_id = (await answer.json())["task_id"]
        job, before = await gateway.hand.take(), gateway.process.memory_info().rss

        async def watch(number: int) -> None:
            with suppress(aiohttp.ClientError):
                async with http.get(f"/task/{task_id}/events") as answer:
                    async for line in answer.content:
                        heard[number] += line.startswith(b"data: ")

        watching = [asyncio.create_task(watch(number)) for number in range(count)]
        while min(heard) == 0:
            await asyncio.sleep(0.1)
        rss, began, cpu = gateway.process.memory_info().rss, time.perf_counter(), _cpu_s(gateway.process)
        for seq in range(1, 11):
            gateway.hand.progress(job, seq / 20, seq=seq)
            await asyncio.sleep(1)
        cores = (_cpu_s(gateway.process) - cpu) / (time.perf_counter() - began)
        events = sum(heard)
        began = time.perf_counter()
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(gateway.process.wait)
        ended = time.perf_counter() - began
        await asyncio.gather(*watching)
    return [
        ("event streams open", str(count)),
        ("events heard", str(events)),
        ("cores at one event a second", f"{cores:.2f}"),
        ("memory a stream", f"{(rss - before) / count / 1024:.0f} KiB"),
        ("SIGTERM to end of process", f"{ended:.2f} s"),
    ]


# ------------------------------------------------------------------------------------------------------------- gateway


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    (folder / "redis").mkdir(parents=True)
    redis = RedisProcess(folder / "redis")
    redis.start()
    process = None
    try:
        async with Platform() as platform:
            environment, settings = _environment(redis, platform, folder)
            key = await _prepared(redis, settings)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "flux_engine", "gateway"),
                env={"PATH": os.environ["PATH"], "HOME": str(folder)} | environment,
                stderr=asyncio.subprocess.DEVNULL,
            )
            headers, hand = {"Authorization": f"Bearer {key}"}, Hand(platform)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{settings.port}", headers=headers) as http:
                task_id = await _finished(http, hand)
            yield Served(f"http://127.0.0.1:{settings.port}", psutil.Process(process.pid), headers, task_id, hand)
    finally:
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        redis.kill()


def _environment(redis: RedisProcess, platform: Platform, folder: Path) -> tuple[dict[str, str], GatewaySettings]:
    variables = dict.fromkeys(("MAX_REQUESTS_PER_MINUTE", "MAX_WORK_PER_MINUTE", "MAX_WORK_PER_DAY"), PLENTY)
    variables |= {"MAX_TASKS_WAITING_PER_USER": PLENTY, "MAX_STREAMS_PER_USER": PLENTY, "PORT": str(free_port())}
    settings = settings_of(redis.url, platform, folder, **variables)
    fixed = {
        "REDIS_URL": redis.url,
        "CACHE_NAMESPACE": settings.namespace,
        "FLUX_MODEL": "flux-tiny",
        "HOST": "127.0.0.1",
        "GATEWAY_DATA": str(folder),
        "GATEWAY_SECRET": "s" * 32,
        "RUNPOD_ENDPOINT_ID": platform.endpoint.id,
        "RUNPOD_API_KEY": "local",
        "RUNPOD_ENDPOINT_BASE_URL": platform.client_url,
        "LOG_LEVEL": "ERROR",
    }
    return fixed | variables, settings


async def _prepared(redis: RedisProcess, settings: GatewaySettings) -> str:
    """A key, and the word of a worker that has made pictures."""
    link = RedisLink(RemoteServer(redis.url))
    key, record = mint("ada", frozenset(("generate", "read")), expires_at=None)
    await KeyStore(link, root=settings.redis_root).add(record)
    notices = Notices(link, namespace=settings.namespace)
    await notices.makes(ModelIdentity(id="flux-tiny", revision="r", precision="float32"))
    await link.close()
    return key.get_secret_value()


async def _finished(http: aiohttp.ClientSession, hand: Hand) -> str:
    """A task that is done, so that the cache has it."""
    made: dict[str, Any] = {}
    while not made:
        with suppress(aiohttp.ClientError):
            async with http.post("/generate-image", json=SUN | {"seed": 1}) as answer:
                made = await answer.json() if answer.status == CREATED else {}
        await asyncio.sleep(0.1)
    hand.finish(await hand.take())
    async with http.get(f"/task/{made['task_id']}/result?wait=60") as answer:
        answer.raise_for_status()
    task_id: str = made["task_id"]
    return task_id


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _share(values: list[float], share: float) -> float:
    if not values:
        return math.nan
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


if __name__ == "__main__":
    main()
