"""A task's way to the queue, when its turn in the line has come.

Every replica runs a dispatcher; the line says whose turn it is, and the ledger lets one of them submit a task. A task
that is in flight but was never submitted, because its replica died in between, is submitted by the sweep.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Literal

from redis.exceptions import RedisError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import StorageFailed
from flux_engine.gateway.seams import Line, Turn
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.task import Task, TaskError
from flux_engine.gateway.tasks.kept import KeptInputs
from flux_engine.gateway.tasks.ledger.agenda import SUBMIT_LEASE_S
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.job.written.aliases import ALIASES
from flux_engine.queues.job_queue import JobQueue, QueueAway, QueuedJob, QueueRefused

AT_ONCE: Final = 32
TICK_S: Final = 1.0
STORE_AGAIN_S: Final = 2.0
TICKET_AGAIN_S: Final = 0.2

log = logging.getLogger(__name__)

Finish = Callable[[Task, Ending], Awaitable[Task]]


class Dispatcher:
    """`run` until it is cancelled; `kick` when a turn may have come."""

    def __init__(
        self,
        ledger: Ledger,
        line: Line,
        queue: JobQueue,
        settings: GatewaySettings,
        *,
        finish: Finish,
        kept: KeptInputs,
        first_look_s: float,
    ) -> None:
        self._ledger = ledger
        self._line = line
        self._queue = queue
        self._settings = settings
        self._finish = finish
        self._kept = kept
        self._first_look_s = first_look_s
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        self._firsts: set[asyncio.Task[None]] = set()  # of users who have no other task in flight
        self._served: deque[str] = deque(maxlen=AT_ONCE)  # whose turn the last ones were

    def kick(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        is_away = False
        try:
            while True:
                self._wake.clear()
                try:
                    await self._hand_over_all()
                    is_away = False
                except (RedisError, CacheAway, OSError) as error:
                    if not is_away:  # once, not at every tick
                        log.warning("line unreachable", extra={"detail": type(error).__name__})
                    is_away = True
                try:
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in tuple(self._running):
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def submit(self, task_id: str) -> None:
        """Hand `task_id` to the queue, unless another replica is at it, it is there already, or it has ended."""
        if not await self._ledger.agenda.begin_submit(task_id):
            await self._leave_if_over(task_id)
            return
        task, held = await self._ledger.get(task_id), await self._ledger.input(task_id)
        if task is None:
            return
        try:
            job_input = await self._kept.unpacked(held) if held is not None else None
        except StorageFailed as error:
            log.warning("store unreachable", extra={"job_id": task_id, "detail": error.message})
            await self._ledger.agenda.end_submit(task_id, look_at=time.time() + STORE_AGAIN_S)
            return
        if job_input is None or task.cancelling:
            gone = _failed("internal", "what this task was made from is gone; send it again")
            await self._finish(task, Ending(status="cancelled") if task.cancelling else gone)
            return
        try:
            ticket = await self._queue.submit(self._job(task, job_input))
        except QueueAway as error:
            log.warning("queue unreachable", extra={"job_id": task_id, "detail": str(error)})
            await self._ledger.agenda.end_submit(task_id, look_at=time.time() + error.retry_after_s)
            return
        except QueueRefused as error:
            log.error("queue refuses a task", extra={"job_id": task_id, "detail": str(error)})
            message = "the queue does not take this task; its operator finds the reason in the gateway's log"
            await self._finish(task, _failed("internal", message))
            return
        became = await self._set_ticket(task_id, ticket)
        log.info("task submitted", extra={"job_id": task_id, "detail": f"attempt {task.attempt + 1}"})
        if became != "kept":
            await self._queue.cancel(ticket)

    async def _set_ticket(self, task_id: str, ticket: str) -> Literal["kept", "cancel", "ended"]:
        """What became of it meanwhile, asked for as long as nobody else submits it: without its ticket a job runs that
        nobody can cancel, and the task is submitted once more beside it."""
        deadline = time.monotonic() + SUBMIT_LEASE_S
        while True:
            try:
                return await self._ledger.agenda.set_ticket(task_id, ticket, look_at=time.time() + self._first_look_s)
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(TICKET_AGAIN_S)

    def hook_path(self, task_id: str) -> str:
        """Where the queue posts when the task has ended: a path that only it is told."""
        key = self._settings.runpod_api_key
        secret = key.get_secret_value() if key is not None else "local"
        digest = hmac.new(secret.encode(), f"hook {task_id}".encode(), hashlib.sha256).hexdigest()
        return f"/hooks/queue/{task_id}/{digest[:32]}"

    async def _hand_over_all(self) -> None:
        while True:
            await self._free.acquire()
            try:
                turn = await self._line.next()
            except BaseException:
                self._free.release()
                raise
            if turn is None:
                self._free.release()
                return
            self._begin(turn)

    def _begin(self, turn: Turn) -> None:
        is_new = turn.is_first and turn.user not in self._served
        before = () if is_new else tuple(self._firsts)
        self._served.append(turn.user)
        submitting = asyncio.create_task(self._submit(turn.task_id, before), name=f"submit {turn.task_id}")
        for group in (self._running, self._firsts) if turn.is_first else (self._running,):
            group.add(submitting)
            submitting.add_done_callback(group.discard)

    async def _submit(self, task_id: str, before: Collection[asyncio.Task[None]]) -> None:
        """Submit once the submissions `before` have ended: whoever had a turn lately, or has more in flight, overtakes
        no one's first."""
        try:
            if before:
                await asyncio.wait(before)
            await self.submit(task_id)
        except (RedisError, CacheAway, QueueAway, QueueRefused, OSError) as error:  # the sweep comes back to it
            log.warning("task not submitted", extra={"job_id": task_id, "detail": type(error).__name__})
        finally:
            self._free.release()

    async def _leave_if_over(self, task_id: str) -> None:
        """A task that ends while it is let into the line has left the line before it entered."""
        task = await self._ledger.get(task_id)
        if task is None or task.is_final:
            await self._line.leave(task.user if task is not None else "", task_id)
            self.kick()

    def _job(self, task: Task, job_input: dict[str, object]) -> QueuedJob:
        url = self._settings.gateway_public_url
        left_s = None if task.deadline_at is None else max(task.deadline_at - time.time(), 1.0)
        return QueuedJob(
            id=task.id,
            input=job_input,
            model=task.model if any(ALIASES.get(name, name) == "model" for name in job_input) else None,
            request_id=task.request_id,
            traceparent=task.traceparent,
            webhook=None if url is None else url + self.hook_path(task.id),
            timeout_s=left_s,
            priority=task.priority,
        )


def _failed(code: str, message: str, *, retryable: bool = True) -> Ending:
    return Ending(status="failed", error=TaskError(code=code, message=message, retryable=retryable))
