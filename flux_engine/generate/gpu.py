"""The one thread that touches the device, its queue, and how a job leaves it early.

Work runs in the order of the turns that its jobs took (turns.py). `Cancellation` tells a running job that it was
cancelled; whoever generates checks it at each step, and the cancellation is reported only when the thread is free.
No thread is made at import nor by the constructor: the platform's ping process is forked before the first job.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from typing import TypeVar

from flux_engine.errors import JobCancelled
from flux_engine.generate.turns import Turn, Turns

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
    """Runs one piece of device work at a time, in order.

    with gpu.turn() as turn:                              # taken first, so that nobody passes this job
        ...                                               # prepare; turn.give_up() before anything slow
        made = await gpu.run(work, turn=turn)
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._executor: ThreadPoolExecutor | None = None

    def turn(self) -> AbstractContextManager[Turn]:
        """A job's turn, to be taken before the job is prepared; it ends where the block is left."""
        return self._turns.turn()

    async def run(self, work: Callable[[Cancellation], Result], *, turn: Turn | None = None) -> Result:
        """Run `work` on the GPU thread when its turn comes; without one, behind all turns that are taken. When the
        caller is cancelled, `work` is too, and has ended on return."""
        if turn is not None:
            return await self._run(work, turn)
        with self.turn() as last:
            return await self._run(work, last)

    def close(self) -> None:
        """Finish the work that has begun or is due, and end the thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._executor = None

    async def _run(self, work: Callable[[Cancellation], Result], turn: Turn) -> Result:
        cancellation, context = Cancellation(), copy_context()  # the log knows the job on this thread too
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Result] = loop.create_future()  # the outcome, as the loop knows it
        outcome: Future[Result] | None = None

        def begin() -> None:
            nonlocal outcome
            if not told.done():  # else the job was cancelled while it waited
                outcome = self._thread().submit(context.run, work, cancellation)
                outcome.add_done_callback(lambda ended: loop.call_soon_threadsafe(_tell, told, ended))

        turn.use(begin)
        try:
            # Each job waits for one thing only, and from before it begins: so jobs wake up in the order of the device,
            # however late the loop comes to it.
            return await told
        except asyncio.CancelledError:
            cancellation.request()
            if outcome is not None and not outcome.cancel():  # it has begun
                await _ended(outcome)
            raise

    def _thread(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")
        return self._executor


def _tell(told: asyncio.Future[Result], outcome: Future[Result]) -> None:
    """Hand `outcome` on, unless its job was cancelled and waits for it no more."""
    if told.done():
        return
    if outcome.cancelled():
        told.cancel()
    elif (error := outcome.exception()) is not None:
        told.set_exception(error)
        told.exception()  # it is known, also where the job is cancelled before it wakes up
    else:
        told.set_result(outcome.result())


async def _ended(future: Future[Result]) -> None:
    """Wait until `future` is over, whatever came of it, through any further cancellation."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    while not future.done():
        try:
            await ended.wait()
        except asyncio.CancelledError:  # asked twice: the answer is still to wait for the device
            continue
