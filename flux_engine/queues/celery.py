"""Jobs on Celery, for workers on GPUs of one's own: the queue's side. The worker's is celery_worker.py.

Celery carries a job's ticket and input to whichever worker is free. How far the job is stands in Redis (records.py),
not in Celery's result backend, which knows nothing of a worker that was killed.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from contextlib import suppress
from ssl import CERT_REQUIRED
from typing import Any, Final

from celery import Celery
from kombu.exceptions import KombuError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from flux_engine.errors import StorageFailed
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.job_queue import QueueAway, QueuedJob, QueueHealth, QueueRefused, Rates, Report, State
from flux_engine.queues.parcel import Parcels
from flux_engine.queues.records import JobRecords, Record
from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import bucket_from_settings
from flux_engine.results.folder import FolderStore
from flux_engine.results.store import ResultStore
from flux_engine.units import GIB

TASK: Final = "flux.run"
VISIBILITY_TIMEOUT_S: Final = 6 * 3600  # longer than any job: a message that comes again earlier would only be refused
PRIORITIES: Final = {"normal": 0, "low": 5}  # kombu serves 0 first
FOLDER_BYTES: Final = 8 * GIB
CONNECTIONS: Final = 64
POOL_WAIT_S: Final = 5.0
MISSED_AFTER_S: Final = 10.0  # a job queued for so long is looked for on the broker
COUNTED_EVERY_S: Final = 2.0
SOCKET_S: Final = 5.0
STATES: Final[dict[str, State]] = {
    "queued": "queued",
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "timed_out": "timed_out",
    "lost": "unknown",
}


def celery_app(settings: CelerySettings) -> Celery:
    """The app that both sides share: JSON alone, one message a worker, acknowledged when its job has ended."""
    app = Celery("flux")
    app.conf.update(
        broker_url=settings.broker_url,
        # kombu trusts any certificate where neither this nor the URL says otherwise; redis-py asks for a good one.
        broker_use_ssl={"ssl_cert_reqs": CERT_REQUIRED} if settings.broker_url.startswith("rediss://") else False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "global_keyprefix": f"flux:{settings.namespace}:broker:",
            "priority_steps": sorted(PRIORITIES.values()),
            "queue_order_strategy": "priority",
            "socket_timeout": SOCKET_S,
            "socket_connect_timeout": SOCKET_S,
            "socket_keepalive": True,
        },
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_default_queue=settings.celery_queue,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_store_errors_even_if_ignored=False,
    )
    return app


def job_records(settings: CelerySettings) -> JobRecords:
    """On a pool of its own: redis-py's default one fails where many calls meet."""
    pool = BlockingConnectionPool.from_url(
        settings.records_url,
        max_connections=CONNECTIONS,
        timeout=POOL_WAIT_S,
        decode_responses=True,
        socket_timeout=SOCKET_S,
        socket_connect_timeout=SOCKET_S,
        health_check_interval=15,
    )
    redis = Redis.from_pool(pool)
    return JobRecords(redis, namespace=settings.namespace, lease_s=settings.celery_lease_seconds)


def parcel_store(settings: CelerySettings) -> ResultStore | None:
    """The bucket, or the shared folder. Raises SettingsError for an unusable bucket."""
    if settings.shared.has_bucket:
        return BucketStore(bucket_from_settings(settings.shared))
    if settings.celery_folder is not None:
        return FolderStore(settings.celery_folder, has_urls=False, max_bytes=FOLDER_BYTES)
    return None


def queue_named(base: str, model: str | None) -> str:
    """The queue of one model: `flux.flux-1-dev` for FLUX.1-dev or black-forest-labs/FLUX.1-dev."""
    if model is None:
        return base
    slug = re.sub(r"[^a-z0-9]+", "-", model.rsplit("/", 1)[-1].lower()).strip("-")
    return f"{base}.{slug}" if slug else base


class CeleryQueue:
    """A JobQueue. For one event loop. A ticket holds its line: `<queue>:<priority>:<job id>:<attempt's own part>`."""

    name: Final = "celery"
    # One's own Redis: a look is one round trip, and the only way to see that a worker is gone.
    rates: Final = Rates(submit=500.0, status=2000.0, cancel=500.0, shows_lost_workers=True)

    def __init__(self, settings: CelerySettings) -> None:
        self._settings = settings
        self._app = celery_app(settings)
        self._records = job_records(settings)
        self._store = parcel_store(settings)
        self._parcels = Parcels(self._store)
        self._counted: dict[str, tuple[float, int]] = {}  # by queue: when, and how many messages it held

    async def submit(self, job: QueuedJob) -> str:
        queue = self._settings.celery_queue
        if self._settings.celery_queue_per_model:
            queue = queue_named(queue, job.model)
        priority = PRIORITIES[job.priority]
        line = f"{queue}:{priority}"
        ticket = f"{line}:{job.id}:{uuid.uuid4().hex[:8]}"
        message = {"id": job.id, "input": job.wire_input(), "timeout_s": job.timeout_s, "sent_at": time.time()}
        try:
            parcel = await self._parcels.pack(message)
        except StorageFailed as error:
            if self._store is None:
                raise QueueRefused(error.message) from error
            raise QueueAway(error.message) from error
        try:
            await self._records.put(ticket, line=line)
            await asyncio.to_thread(self._send, ticket, parcel, queue=queue, priority=priority)
        except (RedisError, KombuError, OSError) as error:
            with suppress(RedisError, OSError):  # or it expires
                await self._records.drop(ticket)
            raise QueueAway(f"the broker does not answer ({type(error).__name__})") from error
        return ticket

    async def status(self, ticket: str) -> Report:
        record = await self._look(ticket)
        if record is None:
            return Report(state="unknown")
        state = STATES[record.state]
        if state == "running":
            return Report(state=state, progress=record.progress)
        if state == "queued":
            return Report(state="unknown" if await self._is_missing(ticket, record) else state)
        outcome = record.outcome or {}
        if "error" in outcome:
            return Report(state=state, error=str(outcome["error"]))
        if state != "completed":
            return Report(state=state)
        try:
            return Report(state=state, output=await self._parcels.unpack(outcome))
        except StorageFailed as error:
            raise QueueAway(error.message) from error

    async def cancel(self, ticket: str) -> Report:
        try:
            await self._records.cancel(ticket)
        except (RedisError, OSError) as error:
            raise QueueAway(f"the broker does not answer ({type(error).__name__})") from error
        return await self.status(ticket)

    async def health(self) -> QueueHealth:
        try:
            workers = await self._records.workers()
            waiting = await asyncio.to_thread(self._count, self._settings.celery_queue)
        except (RedisError, KombuError, OSError) as error:
            raise QueueAway(f"the broker does not answer ({type(error).__name__})") from error
        return QueueHealth(workers=workers, jobs={"inQueue": waiting, "inProgress": workers.get("running", 0)})

    async def close(self) -> None:
        await self._records.redis.aclose()
        await asyncio.to_thread(self._app.close)
        if self._store is not None:
            self._store.close()

    async def _look(self, ticket: str) -> Record | None:
        try:
            return await self._records.look(ticket, line=line_of(ticket))
        except (RedisError, OSError) as error:
            raise QueueAway(f"the broker does not answer ({type(error).__name__})") from error

    def _send(self, ticket: str, parcel: dict[str, Any], *, queue: str, priority: int) -> None:
        self._app.send_task(TASK, args=[ticket, parcel], task_id=ticket, queue=queue, priority=priority, retry=False)

    async def _is_missing(self, ticket: str, record: Record) -> bool:
        """Whether no message is left for a job that no worker has begun: a worker was killed as it took it, or the
        broker forgot it."""
        if time.time() - record.queued_at < MISSED_AFTER_S:
            return False
        queue = record.line.partition(":")[0]
        try:
            counted_at, count = self._counted.get(queue, (float("-inf"), 0))
            if time.monotonic() - counted_at > COUNTED_EVERY_S:
                count = await asyncio.to_thread(self._count, queue)
                self._counted[queue] = (time.monotonic(), count)
            return count == 0 and await self._records.miss(ticket)
        except (RedisError, KombuError, OSError) as error:
            raise QueueAway(f"the broker does not answer ({type(error).__name__})") from error

    def _count(self, queue: str) -> int:
        """Messages of `queue` that no worker has taken yet, of all priorities."""
        with self._app.connection_for_read() as connection, connection.channel() as channel:
            return int(channel._size(queue))


def line_of(ticket: str) -> str:
    """The queue and priority in a ticket."""
    return ":".join(ticket.split(":")[:2])


def job_of(ticket: str) -> str:
    """The id of a ticket's job."""
    return ":".join(ticket.split(":")[2:-1])
