"""A worker whose every way out leads through a seam, and one job's run on it."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Final

from redis.asyncio import Redis

from flux_engine.build import build_questions
from flux_engine.cache.lua import Terms
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import RemoteServer
from flux_engine.generate.generator import Generator
from flux_engine.generate.gpu import GpuThread
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.lora_store import LoraLimits, LoraStore
from flux_engine.inputs.pictures import PictureSource
from flux_engine.models.beside.controlnets import ControlNets
from flux_engine.models.beside.depth import DepthModels
from flux_engine.models.manager import FluxModelManager
from flux_engine.net.fetch import Fetcher
from flux_engine.results.folder import FolderStore
from flux_engine.settings import Settings
from flux_engine.units import GIB
from flux_engine.worker.worker import Worker
from tests.servers import RedisProcess
from tests.web_server import loopback, server
from tests.worker.faults.jobs import Case
from tests.worker.faults.plan import Calls, Fault
from tests.worker.faults.seams import FaultyPending, FaultyStore, RedisProxy, faulty_site, handed_on

LEASE_S: Final = 3600  # a lease that is left stays for the test to find
CALL_TIMEOUT_S: Final = 120  # faults break connections; a stall of the machine is none
_namespaces = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all runs share."""

    models: FluxModelManager
    gpu: GpuThread
    redis: RedisProcess
    tls: tuple[ssl.SSLContext, ssl.SSLContext]
    files: dict[str, bytes]
    lora: Path


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one job: its answer, or None where it was cancelled. `was_made`: the GPU had done its part."""

    identity: str
    answer: dict[str, Any] | None = None
    was_made: bool = False
    said: list[str] = field(default_factory=list)

    @property
    def error(self) -> dict[str, Any] | None:
        if self.answer is None or "error" not in self.answer:
            return None
        error: dict[str, Any] = json.loads(self.answer["error"])
        return error | error["error"] if "error" in error else error  # as OpenAI has it


@dataclass(slots=True, kw_only=True)
class Site:
    """One worker with an empty cache, volume and store."""

    worker: Worker
    cache: CacheManager  # not through the seam
    folder: Path
    calls: Calls
    proxy: RedisProxy
    parts: Parts
    namespace: str
    host: str

    async def run(self, case: Case, identity: str) -> Outcome:
        """One job, whatever becomes of it."""
        outcome = Outcome(identity=identity)

        async def stream(text: str) -> None:
            async def say() -> None:
                outcome.said.append(text)

            await handed_on(self.calls, "stream", say)

        async def send(_: dict[str, Any]) -> None:
            """Nobody looks at it."""

        def made() -> None:
            outcome.was_made = True

        job = case.job(identity, self.host)
        try:
            outcome.answer = await self.worker.run(job, send, stream=stream, min_interval_s=0.0, on_made=made)
        except asyncio.CancelledError:
            outcome.answer = None
        return outcome

    async def run_with(self, case: Case, fault: Fault | None) -> list[Outcome]:
        """The job of `case` with `fault` in it, first, and its twin, where it has one."""
        if case.is_there:
            await self.run(case, "before")
        release = Event()
        busy = asyncio.create_task(self.parts.gpu.run(lambda _: release.wait())) if case.has_twin else None
        names = ["subject", "other"] if case.has_twin else ["subject"]
        running = [asyncio.create_task(self.run(case, name)) for name in names]
        subject = running[case.is_twin]
        self.calls.arm(subject, fault)
        if busy is not None:
            await _first(self.proxy.subscribed.wait(), self.calls.struck.wait(), *running)
            release.set()
            await busy
        await asyncio.wait([subject])
        self.calls.disarm()
        outcomes = [await task for task in running]
        return outcomes[::-1] if case.is_twin else outcomes

    async def leases(self) -> list[Any]:
        async with Redis.from_url(self.parts.redis.url) as client:
            return list(await client.keys(f"flux:{self.namespace}:*:lease"))

    def partial_files(self) -> list[str]:
        found = [*self.folder.rglob("*.partial"), *self.folder.rglob(".cache/partial/*")]
        return [str(path.relative_to(self.folder)) for path in found]


@asynccontextmanager
async def site(parts: Parts, folder: Path, *, has_urls: bool) -> AsyncIterator[Site]:
    """Opened and closed as a worker is."""
    calls = Calls()
    proxy = RedisProxy(parts.redis.port, calls)
    namespace = f"faults-{next(_namespaces)}"
    terms = Terms(lease_s=LEASE_S, entry_s=LEASE_S, wait_limit_s=LEASE_S)
    settings = Settings.from_environment({"MODEL_VOLUME": str(folder / "volume"), "LORA_HOSTS": "*"})
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(server(faulty_site(parts.files, calls), tls=parts.tls[0]))
        url = await stack.enter_async_context(proxy.serving())
        cache = CacheManager(
            RemoteServer(url), namespace=namespace, terms=terms, call_timeout_s=CALL_TIMEOUT_S, retry_after_s=0.05
        )
        beside = CacheManager(RemoteServer(parts.redis.url), namespace=namespace, terms=terms)
        stack.push_async_callback(beside.close)
        pending = FaultyPending(folder / "pending")
        pending.calls = calls
        store = FaultyStore(FolderStore(folder / "results", has_urls=has_urls), calls)
        inputs = _inputs(parts, settings)
        worker = Worker(
            Generator(
                parts.models,
                parts.gpu,
                controlnets=ControlNets(folder / "controlnets"),
                depths=DepthModels(folder / "preprocessors"),
            ),
            served=parts.models.served,
            cache=cache,
            store=store,
            pending=pending,
            inputs=inputs,
            questions=build_questions(settings, models=parts.models, inputs=inputs, cache=cache),
            url_expiry_s=3600,
            open_bucket=lambda config, *, url_expiry_s: FaultyStore(FolderStore(folder / "theirs"), calls),
        )
        stack.push_async_callback(worker.close)
        yield Site(
            worker=worker,
            cache=beside,
            folder=folder,
            calls=calls,
            proxy=proxy,
            parts=parts,
            namespace=namespace,
            host=f"https://files.example:{port}",
        )


def _inputs(parts: Parts, settings: Settings) -> InputFetcher:
    loras = settings.model_volume / "loras"
    loras.mkdir(parents=True)
    shutil.copy(parts.lora, loras / "mosaic.safetensors")
    fetcher = Fetcher(allow_private=True, resolve=loopback, tls=parts.tls[1])
    limits = LoraLimits(max_file_bytes=GIB, max_cache_bytes=GIB)
    store = LoraStore(loras, fetcher=fetcher, limits=limits, sites=LoraSites.from_settings(settings))
    return InputFetcher(store, PictureSource(fetcher))


async def _first(*waits: Any) -> None:
    """Return once one of `waits` is over; those that are no tasks end with it."""
    tasks = [wait if isinstance(wait, asyncio.Task) else asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if wait is not task:
            task.cancel()
