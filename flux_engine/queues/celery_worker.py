"""The worker on Celery, for GPUs of one's own:

    celery -A flux_engine.queues.celery_worker worker --pool threads --concurrency 1

The same `Worker.run` as on RunPod. One event loop lives beside Celery's threads, for as long as the process; a task's
thread hands its job to the loop and waits. Celery ends gracefully on SIGTERM: the running job is finished and reported.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from celery.signals import setup_logging, worker_ready, worker_shutdown
from redis.exceptions import RedisError

from flux_engine.build import build_worker
from flux_engine.logs import set_up_logs
from flux_engine.queues.celery import TASK, celery_app, job_records, parcel_store
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.held_jobs import HeldJobs
from flux_engine.queues.parcel import Parcels
from flux_engine.queues.worker_health import Health, WorkerHealth
from flux_engine.queues.worker_metrics import WorkerMetrics
from flux_engine.settings import SettingsError

Value = TypeVar("Value")

PRESENCE_S: Final = 5.0
CLOSE_S: Final = 20.0

log = logging.getLogger(__name__)


class CeleryWorker:
    """One process: its loop, its Worker, and what it tells in Redis. `run` is called on Celery's threads."""

    def __init__(self, settings: CelerySettings) -> None:
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jobs", daemon=True)
        self._thread.start()
        self._worker = build_worker(settings.shared, is_local=False)
        self._store = parcel_store(settings)
        self._is_warming = settings.shared.warmup == "eager"
        self._metrics = WorkerMetrics()
        port = settings.celery_health_port
        self._served = WorkerHealth(self.health, self._metrics, port=port) if port else None
        self._records = job_records(settings)
        self._jobs = HeldJobs(
            self._records,
            Parcels(self._store),
            worker=self._name,
            run_job=self._worker.run,
            metrics=self._metrics,
            on_change=self._show_presence,
        )
        self._background = self._on_loop(self._begin())

    def health(self) -> Health:
        if self._worker.is_broken:
            return "broken"
        return "warming" if self._is_warming else "ready"

    def run(self, ticket: str, parcel: Mapping[str, Any]) -> None:
        """Take the job of `ticket` to its end. Raises nothing: what came of it stands in its record."""
        self._on_loop(self._jobs.run(ticket, parcel))
        if self._worker.is_broken:
            log.error("device broken, worker ends")
            os._exit(1)  # Celery offers no exit code to a task; only another process brings the device back

    def close(self) -> None:
        """Leave, once no job is running."""
        with suppress(TimeoutError, RedisError, OSError):
            self._on_loop(self._end(), within_s=CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=CLOSE_S)

    def _on_loop(self, work: Coroutine[Any, Any, Value], *, within_s: float | None = None) -> Value:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    async def _begin(self) -> list[asyncio.Task[None]]:
        if self._served is not None:
            await self._listen(self._served)
        beside = [self._stay_present(), self._jobs.hear_cancellations()]
        if self._is_warming:
            beside.append(self._warm())
        return [asyncio.create_task(work) for work in beside]

    async def _listen(self, served: WorkerHealth) -> None:
        try:
            await served.start()
        except OSError as error:  # several workers of one machine: the jobs matter more than the probes
            log.warning("health port unavailable", extra={"detail": str(error.strerror)})

    async def _end(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._records.leave(self._name)
        if self._served is not None:
            await self._served.close()
        await self._records.redis.aclose()
        await self._worker.close()
        if self._store is not None:
            self._store.close()

    async def _warm(self) -> None:
        await self._worker.warm()
        self._is_warming = False

    async def _stay_present(self) -> None:
        while True:
            await self._show_presence()
            await asyncio.sleep(PRESENCE_S)

    async def _show_presence(self) -> None:
        state = "running" if len(self._jobs) else "initializing" if self._is_warming else "idle"
        with suppress(RedisError, OSError):
            await self._records.present(self._name, state)


class _Process:
    """The one CeleryWorker of this process, made at its first use: Celery imports this module to list its tasks too."""

    def __init__(self, settings: CelerySettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: CeleryWorker | None = None

    def get(self) -> CeleryWorker:
        with self._lock:
            if self._made is None:
                self._made = CeleryWorker(self._settings)
            return self._made

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None


try:
    _settings = CelerySettings.from_environment(os.environ)
    app = celery_app(_settings)
except SettingsError as error:
    sys.exit(f"The worker cannot start: {error}")
_process = _Process(_settings)


@app.task(name=TASK, ignore_result=True, acks_late=True)  # type: ignore[untyped-decorator]
def run(ticket: str, parcel: dict[str, Any]) -> None:
    """One job, as `CeleryQueue.submit` sends it."""
    _process.get().run(ticket, parcel)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logs(**_: Any) -> None:
    set_up_logs(_settings.shared.log_level, as_json=not sys.stderr.isatty())


@worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(**_: Any) -> None:
    """Be seen, and warm up where WARMUP asks for it, before the first job."""
    _process.get()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _shut_down(**_: Any) -> None:
    _process.close()
