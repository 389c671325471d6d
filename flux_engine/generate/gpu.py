"""The one thread that touches the device, its queue, and how a job leaves it early.

Work runs in the order of the places that its jobs took in the line. A cancelled job is told through `Cancellation`,
which whoever generates checks at each step; the cancellation is reported only when the thread is free again. No thread
is made at import nor by the constructor: the platform's ping process is forked before the first job.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

from flux_engine.errors import JobCancelled
from flux_engine.generate.turns import Line

Result = TypeVar("Result")


class Cancellation:
    """Tells the GPU thread that nobody waits for the job any more."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []

    def request(self) -> None:
        with self._lock:
            self._event.set()
            for call in self._calls:
                call()

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Within, a cancellation also calls `call`, on the thread that requests it: for what checks nothing while it
        waits. `call` must return at once; it is not called any more when the block has been left."""
        with self._lock:
            self._calls.append(call)
            if self._event.is_set():
                call()
        try:
            yield
        finally:
            with self._lock:
                self._calls.remove(call)

    def check(self) -> None:
        """Raise JobCancelled if the job was cancelled."""
        if self._event.is_set():
            raise JobCancelled


def settle() -> None:
    """Wait until the device has done what it was given, so that clocks, progress and errors belong to what they name.

    Work on a GPU is queued, and diffusers' loop nowhere waits for it. Once a step this costs some launches ahead.
    """
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()


class GpuThread:
    """Runs one piece of device work at a time, in order."""

    def __init__(self) -> None:
        self._line = Line()
        self._executor: ThreadPoolExecutor | None = None

    def place(self) -> AbstractContextManager[int]:
        """A job's place in the line, to be taken before the job is prepared, and given up where the block is left."""
        return self._line.place()

    async def run(self, work: Callable[[Cancellation], Result], *, place: int | None = None) -> Result:
        """Run `work` on the GPU thread, at `place` or behind all that is in the line. When the caller is cancelled,
        `work` is too, and has ended on return."""
        if place is not None:
            return await self._run(work, place)
        with self.place() as last:
            return await self._run(work, last)

    def close(self) -> None:
        """Finish what is in the line and end the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None

    async def _run(self, work: Callable[[Cancellation], Result], place: int) -> Result:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")
        cancellation, future = Cancellation(), Future[Result]()
        self._line.put(partial(_run_into, future, work, cancellation), place=place)
        self._executor.submit(self._run_next)
        outcome = asyncio.wrap_future(future)
        outcome.add_done_callback(_noticed)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            cancellation.request()
            if not future.cancel():  # it has begun
                await _ended(future)
            raise

    def _run_next(self) -> None:
        self._line.next()()


def _run_into(future: Future[Result], work: Callable[[Cancellation], Result], cancellation: Cancellation) -> None:
    """Run `work`, unless `future` was cancelled before; whatever comes of it is the future's."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        cancellation.check()
        future.set_result(work(cancellation))
    except BaseException as error:  # noqa: BLE001  (as an executor does: the caller is to know)
        future.set_exception(error)


def _noticed(outcome: asyncio.Future[Result]) -> None:
    """Nobody awaits the end of a cancelled job; without this asyncio would report it as an error of its own."""
    if not outcome.cancelled():
        outcome.exception()


async def _ended(future: Future[Result]) -> None:
    """Wait until `future` is over, whatever came of it, through any further cancellation."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    while not future.done():
        try:
            await ended.wait()
        except asyncio.CancelledError:  # asked twice: the answer is still to wait for the device
            continue
