"""The end of a worker process: what runs is finished and delivered, and nothing more is taken."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

IDLE_POLL_S: Final = 0.1

log = logging.getLogger(__name__)


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
        self._is_taking = False  # from a request for jobs until the SDK counts those that came

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
        self._is_taking = False
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
            self._is_taking, jobs = True, None
            try:
                await asyncio.wait((taking, asked), return_when=asyncio.FIRST_COMPLETED)
                jobs = taking.result() if taking.done() else None
            except asyncio.CancelledError:  # the SDK's time-out; jobs may have come with it
                if not taking.done() or not taking.result():
                    raise
                jobs = taking.result()
            finally:
                self._is_taking = bool(jobs)
                taking.cancel()
                asked.cancel()
            return jobs

        return take_until_asked

    async def _end(self) -> None:
        """Cancel the SDK's loops, more than once: `wait_for` of Python 3.11 swallows a cancellation that arrives
        together with its result, which may be a job."""
        while True:
            while self._is_taking or _jobs_in_hand() > 0:  # noqa: ASYNC110  (the SDK has no event for it)
                await asyncio.sleep(IDLE_POLL_S)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(IDLE_POLL_S)


def _jobs_in_hand() -> int:
    """Jobs that the SDK has taken and not delivered yet."""
    from runpod.serverless.modules.worker_state import JobsProgress

    return int(JobsProgress().get_job_count())
