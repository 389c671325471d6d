"""The jobs of one Celery worker: each claimed, run under a lease that is renewed, and reported.

    jobs = HeldJobs(records, parcels, worker="host-1", run_job=worker.run, metrics=..., on_change=...)
    await jobs.run(ticket, parcel)

A worker that is gone renews nothing: its job is `lost` then, and whoever keeps the ledger submits it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from flux_engine.errors import Internal, StorageFailed
from flux_engine.logs import about_job
from flux_engine.progress import Send, Update
from flux_engine.queues.celery import job_of, line_of
from flux_engine.queues.parcel import Parcels
from flux_engine.queues.records import JobRecords, RecordState
from flux_engine.queues.worker_metrics import WorkerMetrics

HEARD_EVERY_S: Final = 5.0  # at the latest, the connection that hears of cancellations is looked at
RENEWALS: Final = 4  # a lease is renewed so many times before it would run out
TELL_FOR_S: Final = 60.0  # how long a worker tries to report an outcome while Redis is away

log = logging.getLogger(__name__)


class HeldJobs:
    """See the module. For one event loop."""

    def __init__(
        self,
        records: JobRecords,
        parcels: Parcels,
        *,
        worker: str,
        run_job: Callable[[Mapping[str, Any], Send], Awaitable[Mapping[str, Any]]],
        metrics: WorkerMetrics,
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """`worker` is this process's name. `on_change` is called when a job has begun or ended."""
        self._records = records
        self._parcels = parcels
        self._worker = worker
        self._run_job = run_job
        self._metrics = metrics
        self._on_change = on_change
        self._running: dict[str, asyncio.Task[Mapping[str, Any]]] = {}

    def __len__(self) -> int:
        """How many run now."""
        return len(self._running)

    async def run(self, ticket: str, parcel: Mapping[str, Any]) -> None:
        """Take the job of `ticket` to its end, which its record tells."""
        with about_job(job_of(ticket)):
            await self._run(ticket, parcel)

    async def _run(self, ticket: str, parcel: Mapping[str, Any]) -> None:
        claim = await self._insist(self._records.claim, ticket, line=line_of(ticket), worker=self._worker)
        if claim != "claimed":
            log.info("message skipped", extra={"detail": f"its job is {claim}"})
            return
        latest: dict[str, Update] = {}
        job = asyncio.create_task(self._outcome(parcel, latest))
        self._running[ticket] = job
        await self._on_change()
        has_ended = asyncio.Event()  # not a cancellation, which could arrive within a call and be lost there
        holding = asyncio.create_task(self._hold(ticket, latest, until=has_ended))
        try:
            await asyncio.wait({job})
            self._running.pop(ticket, None)
            await self._tell(ticket, *await self._ended(job, job_of(ticket)))
        finally:  # not before: a large result may take longer to store than a lease lasts
            has_ended.set()
            await holding

    async def _tell(self, ticket: str, state: RecordState, outcome: Mapping[str, Any]) -> None:
        await self._on_change()
        told = await self._insist(self._records.finish, ticket, worker=self._worker, state=state, outcome=outcome)
        if not told:
            log.warning("outcome not reported: the job was given to another worker", extra={"detail": state})

    async def hear_cancellations(self) -> None:
        """A message is quicker than the next renewal, which finds the same."""
        while True:
            with suppress(RedisError, OSError):
                async with self._records.redis.pubsub() as messages:
                    await messages.subscribe(self._records.cancel_channel)
                    while True:
                        message = await messages.get_message(ignore_subscribe_messages=True, timeout=HEARD_EVERY_S)
                        if message is not None:
                            self._cancel(str(message["data"]))
            await asyncio.sleep(1.0)

    async def _outcome(self, parcel: Mapping[str, Any], latest: dict[str, Update]) -> Mapping[str, Any]:
        """The worker's result, or its `{"error": ...}`. Raises StorageFailed, TimeoutError and CancelledError."""
        message = await self._parcels.unpack(parcel)

        async def send(update: Update) -> None:
            latest["update"] = update

        began = time.monotonic()
        self._metrics.begun(waited_s=time.time() - float(message.get("sent_at", time.time())))
        outcome, result = "failed", None
        try:
            async with asyncio.timeout(message.get("timeout_s")):
                result = await self._run_job(message, send)
            outcome = "failed" if "error" in result else "completed"
            return result
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except TimeoutError:
            outcome = "timed_out"
            raise
        finally:
            self._metrics.ended(outcome, took_s=time.monotonic() - began, result=result)

    async def _ended(self, job: asyncio.Task[Mapping[str, Any]], job_id: str) -> tuple[RecordState, Mapping[str, Any]]:
        try:
            result = job.result()
            if "error" in result:
                return "failed", {"error": result["error"]}
            return "completed", await self._parcels.pack(result)
        except asyncio.CancelledError:
            return "cancelled", {}
        except TimeoutError:
            return "timed_out", {"error": Internal("the job took longer than it was given").to_json(job_id)}
        except StorageFailed as error:
            return "failed", {"error": error.to_json(job_id)}
        except ValueError as error:  # a number that JSON has not; Worker.run raises nothing
            log.error("result not packed", extra={"detail": str(error)})
            return "failed", {"error": Internal("the result could not be sent").to_json(job_id)}

    async def _hold(self, ticket: str, latest: dict[str, Update], *, until: asyncio.Event) -> None:
        """Renew the lease; each renewal carries the latest progress."""
        while not until.is_set():
            with suppress(RedisError, OSError):
                held = await self._records.renew(ticket, worker=self._worker, progress=latest.pop("update", None))
                if held == "cancelling":
                    self._cancel(ticket)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, self._records.lease_s / RENEWALS)):
                    await until.wait()

    def _cancel(self, ticket: str) -> None:
        """Once: a second time would break off what the first one makes the job clear away."""
        job = self._running.get(ticket)
        if job is not None and not job.cancelling():
            job.cancel()

    async def _insist(self, call: Any, *arguments: Any, **named: Any) -> Any:
        """`call` again and again while Redis is away, for a minute: a finished picture is worth the wait."""
        until = time.monotonic() + TELL_FOR_S
        while True:
            try:
                return await call(*arguments, **named)
            except (RedisError, OSError) as error:
                if time.monotonic() > until:
                    log.error("records unreachable", extra={"detail": type(error).__name__})
                    return None
                await asyncio.sleep(1.0)
