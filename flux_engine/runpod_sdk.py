"""What the RunPod SDK leaves open, closed: loops without idling, delivery that is retried, progress, a prompt end.

Each piece first checks that the SDK still has what it builds on; otherwise it logs so and leaves the SDK as it is. The
SDK is imported by `import_runpod` before anything else here is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from flux_engine.openai.call import Stream
from flux_engine.progress import Send, Update

PART_CHARACTERS: Final = 450_000  # the platform takes 1 MB; JSON may double each
POST_TIMEOUT_S: Final = 10.0
RESULT_ATTEMPTS: Final = 8
RETRIED_STATUSES: Final = frozenset({408, 425, 429})
MAX_MAKING: Final = 8
IDLE_POLL_S: Final = 0.1
LOOK_AGAIN_S: Final = 1.0
SCALER_METHODS: Final = ("set_scale", "run_jobs", "handle_job", "current_occupancy", "is_alive")

log = logging.getLogger(__name__)


def import_runpod() -> ModuleType:
    """The SDK, without what a worker never uses of it and pays for at every start.

    Its command line imports paramiko with a hundred modules, and its debugger asks cpuinfo for the processor's name,
    which takes as long as the rest together (measured). Both come where something does use them.
    """
    stand_ins = [_NoProcessor("cpuinfo"), _Later("paramiko")]
    left_out = {stand_in.__name__: stand_in for stand_in in stand_ins if stand_in.__name__ not in sys.modules}
    sys.modules |= left_out
    try:
        return import_module("runpod")
    finally:
        for name, stand_in in left_out.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


class _Later(ModuleType):
    """A module that is imported when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


class _NoProcessor(_Later):
    """cpuinfo without an answer to what the SDK asks at import; it says itself that the name is missing."""

    def get_cpu_info(self) -> dict[str, Any]:
        return {}


def progress_sender(job: Mapping[str, Any]) -> Send | None:
    """A sender to the platform's result URL, or None where there is no platform."""
    if not os.environ.get("RUNPOD_WEBHOOK_POST_OUTPUT"):
        return None
    import aiohttp
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules import rp_http

    url = rp_http.JOB_DONE_URL.replace("$ID", str(job["id"])) + "&isStream=false"

    async def send(update: Update) -> None:
        body = json.dumps({"status": "IN_PROGRESS", "output": update}, ensure_ascii=False)
        headers = {"X-Request-ID": str(job["id"]), "Content-Type": "application/x-www-form-urlencoded"}
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_S)
        try:
            async with (
                AsyncClientSession() as session,
                session.post(url, data=body, headers=headers, timeout=timeout) as response,
            ):
                await response.read()
        except aiohttp.ClientError as error:
            raise OSError(type(error).__name__) from error

    return send


def part_sender(job: Mapping[str, Any]) -> Stream | None:
    """A sender to the platform's stream of `job`, or None where there is no platform.

    The SDK offers its stream to generator handlers alone; this is what it does for one. A text over the platform's
    limit of a part goes as several, to be put together by whoever reads them.
    """
    if not os.environ.get("RUNPOD_WEBHOOK_POST_STREAM"):
        return None
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules import rp_http

    if not hasattr(rp_http, "stream_result"):
        log.warning("runpod SDK changed: streamed requests are answered in one piece")
        return None

    async def send(text: str) -> None:
        async with AsyncClientSession() as session:
            for start in range(0, len(text), PART_CHARACTERS):
                await rp_http.stream_result(session, {"output": text[start : start + PART_CHARACTERS]}, dict(job))

    return send


def retry_results() -> bool:
    """Make the SDK retry the delivery of a result after a reset connection, 408, 425 and 429, not only after a 5xx.

    On its own it retries only a 5xx, three times, and any other failure loses a finished job (measured, docs/facts.md).
    A result that arrives twice is harmless. Returns whether the SDK still has what this replaces.
    """
    import aiohttp
    from aiohttp_retry import ExponentialRetry
    from runpod.serverless.modules import rp_http

    if not hasattr(rp_http, "FibonacciRetry"):
        log.warning("runpod SDK changed: results are delivered with its own retries")
        return False

    def patient(**_: object) -> ExponentialRetry:
        return ExponentialRetry(
            attempts=RESULT_ATTEMPTS,
            start_timeout=0.25,
            max_timeout=15.0,
            statuses=set(RETRIED_STATUSES),
            exceptions={aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError, TimeoutError},
        )

    rp_http.FibonacciRetry = patient
    return True


class Unprinted(dict[str, Any]):
    """A result that the SDK can handle and need not print.

    The SDK formats each result twice for debug lines, whatever the log level: 180 ms each for 17 MB of base64, during
    which the worker's loop stands still (measured).
    """

    def __repr__(self) -> str:
        return f"<result with {', '.join(self)}>"


class Deliveries:
    """Jobs that the GPU has done with and that are still encoded, stored and posted."""

    def __init__(self) -> None:
        self.changed: Final = asyncio.Event()
        self._ids: Final[set[str]] = set()

    def begin(self, job_id: str) -> None:
        """The GPU has done with it."""
        self._ids.add(job_id)
        self.changed.set()

    def end(self, job_id: str) -> None:
        """It is over, delivered or not."""
        self._ids.discard(job_id)
        self.changed.set()

    def __len__(self) -> int:
        return len(self._ids)


def wake_on_events(making: int = MAX_MAKING, deliveries: Deliveries | None = None) -> bool:
    """Make the SDK's loops act when a job comes or ends, not at their next look. To be called before the SDK starts.

    The SDK looks every 0.1 s for a job that it has taken, and once a second whether there is room for another one: on
    average a job waits 50 ms for its start, and a worker with one slot idles half a second after each (measured).
    At most `making` jobs are in hand that the GPU has not done with, however many slots there are: one that is
    delivered leaves its place to the next, and none is taken ahead that an idle worker could begin.
    Returns whether the SDK still has what this replaces.
    """
    from runpod.serverless.modules import rp_scale

    scaler = getattr(rp_scale, "JobScaler", None)
    if scaler is None or not all(hasattr(scaler, name) for name in SCALER_METHODS):
        log.warning("runpod SDK changed: it looks for jobs at its own intervals")
        return False
    rp_scale.JobScaler = _woken_by_events(scaler, making, Deliveries() if deliveries is None else deliveries)
    return True


def _woken_by_events(base: type[Any], making: int, deliveries: Deliveries) -> type[Any]:
    """The SDK's scaler with its two waits replaced. `LOOK_AGAIN_S` bounds each, for what gives no event: signals."""

    class Scaler(base):  # type: ignore[misc]
        jobs_fetcher: Any
        jobs_queue: Any

        def __init__(self, config: Mapping[str, Any]) -> None:
            super().__init__(config)
            self._news = asyncio.Event()
            self.take_from_platform = self.jobs_fetcher
            self.jobs_fetcher = self._take
            self.jobs_queue = _Jobs(self.current_concurrency, self._news)

        async def set_scale(self) -> None:  # asked before a take: returns when there is room for a job
            await super().set_scale()
            if not isinstance(self.jobs_queue, _Jobs):  # it has another size now, and is empty
                self.jobs_queue = _Jobs(self.current_concurrency, self._news)
            while self.is_alive() and self._room() <= 0:
                await _set_within(deliveries.changed, LOOK_AGAIN_S)

        def _room(self) -> int:
            in_hand = int(self.current_occupancy())
            return min(int(self.current_concurrency) - in_hand, making - (in_hand - len(deliveries)))

        async def run_jobs(self, session: Any) -> None:
            """Begin jobs as they come, up to the concurrency, until the worker ends; then let the running ones end."""
            running = set[asyncio.Task[None]]()
            while self.is_alive() or not self.jobs_queue.empty():
                while len(running) < self.current_concurrency and not self.jobs_queue.empty():
                    job = self.jobs_queue.get_nowait()
                    task = asyncio.create_task(self.handle_job(session, job))
                    running.add(task)
                    self.jobs_tasks[job["id"]] = task
                    task.add_done_callback(running.discard)
                    task.add_done_callback(_noticed_by(self._news))
                await _set_within(self._news, LOOK_AGAIN_S)
            await asyncio.gather(*running, return_exceptions=True)

        async def handle_job(self, session: Any, job: Any) -> None:
            try:
                await super().handle_job(session, job)
            finally:
                deliveries.end(job["id"])

        async def _take(self, session: Any, count: int) -> Any:  # nothing for a worker that ends
            count = min(count, self._room())
            return await self.take_from_platform(session, count) if self.is_alive() and count > 0 else None

    return Scaler


def _noticed_by(news: asyncio.Event) -> Callable[[asyncio.Task[None]], None]:
    def noticed(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # the SDK has logged it
        news.set()

    return noticed


class _Jobs(asyncio.Queue[Any]):
    """The jobs that were taken and have not begun."""

    def __init__(self, maxsize: int, taken: asyncio.Event) -> None:
        super().__init__(maxsize)
        self._taken = taken

    def _put(self, item: Any) -> None:
        super()._put(item)
        self._taken.set()


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for news since the last look, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


class GracefulStop:
    """Draining: running jobs are finished and delivered, no job is taken, and the process ends.

    It begins at SIGTERM, or by `begin` where this process should take no further job. The SDK alone waits up to 90 s
    for another job, is killed by then, and loses a job that it takes meanwhile. Here its wait for jobs ends at once,
    and the process ends when no job is running; a model that is being loaded is loaded first.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self._asked = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._is_installed = False
        self._is_watching = False

    def install(self) -> bool:
        """To be called before the SDK starts. Returns whether it still has what this replaces."""
        from runpod.serverless.modules import rp_scale, worker_state

        if not hasattr(rp_scale, "get_job") or not hasattr(worker_state.JobsProgress, "get_job_count"):
            log.warning("runpod SDK changed: it ends workers in its own way, which may take 90 s")
            return False
        rp_scale.get_job = self._until_asked(rp_scale.get_job)
        self._is_installed = True
        return True

    def concurrency(self, usual: int) -> int:
        """The answer of the SDK's `concurrency_modifier`, which its loop calls before each take.

        While draining it is the number of jobs that were taken, so that the SDK asks for no other. Not 0: the SDK
        begins a job only while fewer run than this, so a job that arrived last would wait for ever (measured).
        """
        if not self._is_installed:
            return 0 if self.is_stopping else usual
        if not self._is_watching:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.begin, "SIGTERM")
            self._is_watching = True
        return _jobs_in_hand() if self.is_stopping else usual

    def begin(self, reason: str) -> None:
        """End this process once its jobs are delivered. To be called from the SDK's loop."""
        if self.is_stopping:
            return
        log.info("draining: finishing running jobs", extra={"detail": reason})
        self.is_stopping = True
        self._asked.set()
        if self._is_installed:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    def _until_asked(self, take: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """`take`, the SDK's wait for jobs, abandoned when draining begins, and not begun again afterwards.

        The SDK decides how many jobs to ask for, waits until its last job is done, and only then asks: with a second
        slot it would ask once more, and an abandoned request may already have been answered with a job.
        """

        async def take_until_asked(*arguments: Any, **named: Any) -> Any:
            if self._asked.is_set():
                return None
            taking = asyncio.ensure_future(take(*arguments, **named))
            asked = asyncio.ensure_future(self._asked.wait())
            try:
                await asyncio.wait((taking, asked), return_when=asyncio.FIRST_COMPLETED)
                return taking.result() if taking.done() else None
            finally:
                taking.cancel()
                asked.cancel()

        return take_until_asked

    async def _end(self) -> None:
        """Cancel the SDK's loops, more than once: `wait_for` of Python 3.11 swallows a cancellation that arrives
        together with its result, which may be a job."""
        while True:
            while _jobs_in_hand() > 0:  # noqa: ASYNC110  (the SDK has no event for it)
                await asyncio.sleep(IDLE_POLL_S)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(IDLE_POLL_S)


def _jobs_in_hand() -> int:
    """Jobs that the SDK has taken and not delivered yet."""
    from runpod.serverless.modules.worker_state import JobsProgress

    return int(JobsProgress().get_job_count())
