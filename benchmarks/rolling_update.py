"""Gateways and workers replaced one by one under load, as Kubernetes does it: no request may fail, no task be lost.

    python -m benchmarks.rolling_update --tasks 120

Two gateways and two Celery workers. A new gateway takes requests once /readyz says so; the old one takes none any more,
has a moment for those on their way, and gets SIGTERM. A worker gets SIGTERM and is replaced when it has ended. Clients
create tasks, watch their streams, which may end in good order and are opened again, and fetch every picture.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from benchmarks.fleet import quantile, table
from benchmarks.gateways import GatewayProcess, new_key
from local_platform.celery_workers import CeleryPool
from tests.servers import RedisProcess

FINAL: Final = ("completed", "failed", "cancelled")
CLIENTS: Final = 6
DRAIN_S: Final = 2.0  # the manifest's preStop, shorter here
WORKER_GRACE_S: Final = 120.0


@dataclass(slots=True)
class Service:
    """The gateways that take requests, and what came of these."""

    ready: list[GatewayProcess] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _turns: Any = field(default_factory=itertools.count)

    def url(self, path: str) -> str:
        return f"{self.ready[next(self._turns) % len(self.ready)].url}/{path}"

    async def ask(self, http: httpx2.AsyncClient, method: str, path: str, **more: Any) -> httpx2.Response | None:
        """The answer, or None for one that failed, which is kept as a fault."""
        began = time.monotonic()
        try:
            answer = await http.request(method, self.url(path), **more)
        except httpx2.HTTPError as error:
            self.faults.append(f"{method} {path.partition('/')[0]}: {type(error).__name__}")
            return None
        self.seconds.append(time.monotonic() - began)
        self.requests[str(answer.status_code)] += 1
        if answer.status_code >= 400:
            self.faults.append(f"{method} {path.partition('/')[0]}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer

    async def watch(self, http: httpx2.AsyncClient, task_id: str) -> str:
        """Follow the stream to the task's end, across the ends of gateways."""
        last = ""
        while True:
            self.requests["streams"] += 1
            try:
                headers = {"Last-Event-ID": last} if last else {}
                async with http.stream("GET", self.url(f"task/{task_id}/events"), headers=headers) as answer:
                    if answer.status_code >= 400:
                        self.faults.append(f"events: {answer.status_code}")
                    async for line in answer.aiter_lines():
                        name, _, value = line.partition(": ")
                        last = value if name == "id" else last
                        if name == "data" and (status := json.loads(value).get("status")) in FINAL:
                            return str(status)
            except httpx2.HTTPError as error:
                self.faults.append(f"events broke: {type(error).__name__}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=120)
    options = parser.parse_args()
    service, ended = asyncio.run(measure(tasks=options.tasks))
    rows = [
        ("tasks, by how they ended", ", ".join(f"{status} {count}" for status, count in ended.items())),
        ("requests, by answer", ", ".join(f"{status} {count}" for status, count in sorted(service.requests.items()))),
        ("slowest request, s; 99 %", f"{max(service.seconds):.2f}; {quantile(service.seconds, 0.99):.2f}"),
        ("failed requests", len(service.faults)),
        ("lost tasks", options.tasks - ended["completed"]),
    ]
    print(table(("two gateways and two workers replaced", ""), rows))
    print("\n".join(service.faults))
    return 1 if service.faults or ended["completed"] != options.tasks else 0


async def measure(*, tasks: int) -> tuple[Service, Counter[str]]:
    with tempfile.TemporaryDirectory(prefix="rolling-") as name:
        redis = RedisProcess(Path(name))
        redis.start()
        environment = {
            "QUEUE": "celery",
            "REDIS_URL": redis.url,
            "CACHE_NAMESPACE": "rolling",
            "CELERY_FOLDER": f"{name}/parcels",
            "GATEWAY_DATA": f"{name}/results",
            "GATEWAY_SECRET": "rolling!" * 4,
            "MODEL_VOLUME": f"{name}/volume",
            "FLUX_MODEL": "flux-tiny",
            "WARMUP": "eager",
            "OMP_NUM_THREADS": "1",
        }
        service = Service()
        try:
            async with CeleryPool(environment=environment) as pool:
                await pool.start(2)
                key = await new_key(environment)  # without one a gateway does not start
                service.ready = [await started(environment) for _ in range(2)]
                ended = await under_load(service, environment, pool, key=key, tasks=tasks)
        finally:
            await asyncio.gather(*(gateway.terminate() for gateway in service.ready))
            redis.kill()
        return service, ended


async def started(environment: dict[str, str]) -> GatewayProcess:
    gateway = await GatewayProcess.start(environment)
    await gateway.until_ready()
    return gateway


async def under_load(
    service: Service, environment: dict[str, str], pool: CeleryPool, *, key: str, tasks: int
) -> Counter[str]:
    """Every task to its end, while the update runs; the load goes on until it is done."""
    headers = {"Authorization": f"Bearer {key}"}
    ended: Counter[str] = Counter()
    free = asyncio.Semaphore(CLIENTS)
    async with httpx2.AsyncClient(headers=headers, timeout=120, trust_env=False) as http:

        async def run(number: int) -> None:
            async with free:
                ended[await one_task(service, http, number)] += 1

        updating = asyncio.create_task(update(service, environment, pool))
        await asyncio.gather(*(run(number) for number in range(tasks)))
        await updating
    return ended


async def one_task(service: Service, http: httpx2.AsyncClient, number: int) -> str:
    fields = {"prompt": f"a red sun {number}", "width": 128, "height": 128, "num_inference_steps": 8}
    headers = {"Prefer": "wait=20"} if number % 3 == 0 else {}  # some hold their request open
    made = await service.ask(http, "POST", "generate-image", json=fields, headers=headers)
    if made is None:
        return "not created"
    task_id = made.json()["task_id"]
    status = await service.watch(http, task_id)
    if status == "completed":
        picture = await service.ask(http, "GET", f"task/{task_id}/result")
        return status if picture is not None and picture.content.startswith(b"\x89PNG") else "without its picture"
    return status


async def update(service: Service, environment: dict[str, str], pool: CeleryPool) -> None:
    for old in list(service.ready):
        service.ready.append(await started(environment))
        service.ready.remove(old)
        await asyncio.sleep(DRAIN_S)
        status = await old.terminate()
        if status != 0:
            service.faults.append(f"a gateway ended with status {status}")
    for worker in list(pool.workers):
        worker.terminate()
        status = await worker.wait(timeout_s=WORKER_GRACE_S)
        if status != 0:
            service.faults.append(f"a worker ended with status {status}")
        await pool.replace(worker)


if __name__ == "__main__":
    sys.exit(main())
