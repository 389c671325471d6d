"""The SDK's loops, woken by events: a job that comes begins at once, and one that ends leaves its place at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_MAKING: Final = 8
LOOK_AGAIN_S: Final = 1.0
SCALER_METHODS: Final = ("set_scale", "run_jobs", "handle_job", "current_occupancy", "is_alive")

log = logging.getLogger(__name__)


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
