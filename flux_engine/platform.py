"""What the RunPod SDK leaves open, closed: delivery that is retried, progress that is posted, an end that is prompt.

Each piece asks first whether the SDK still has what it builds on; where it does not, the SDK's own way stays. The SDK
is imported by `handler.py` before anything here is called.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from typing import Any, Final

from flux_engine.progress import Send, Update

POST_TIMEOUT_S: Final = 10.0
RESULT_ATTEMPTS: Final = 8
RETRIED_STATUSES: Final = frozenset({408, 425, 429})
IDLE_POLL_S: Final = 0.1

log = logging.getLogger(__name__)


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


def retry_results() -> bool:
    """Make the SDK try a result's delivery again after a reset connection, 408, 425 and 429, not after 5xx alone.

    Its own retries know the 5xx only, and three of them: anything else loses a finished job (measured, runpod-facts).
    A result that arrives twice is harmless. Returns whether the SDK still has the place for it.
    """
    import aiohttp
    from aiohttp_retry import ExponentialRetry
    from runpod.serverless.modules import rp_http

    if not hasattr(rp_http, "FibonacciRetry"):
        log.warning("this version of the runpod SDK has its own retries; results are delivered by them")
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


class GracefulStop:
    """SIGTERM: what is in hand is finished and delivered, nothing new is taken, and the process ends.

    The SDK alone goes on waiting for a job for up to 90 s, is killed by then, and loses a job that is handed over
    meanwhile. Here the wait ends as soon as no job is in hand.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self._taking: asyncio.Task[Any] | None = None
        self._ending: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """To be called from the SDK's loop before each take: that task is the one that waits for jobs."""
        if self._taking is None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._begin)
        self._taking = asyncio.current_task()

    def _begin(self) -> None:
        if not self.is_stopping:
            log.info("SIGTERM: finishing what is in hand")
            self.is_stopping = True
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        from runpod.serverless.modules.worker_state import JobsProgress

        while JobsProgress().get_job_count() > 0:  # noqa: ASYNC110  (the SDK has no event for it)
            await asyncio.sleep(IDLE_POLL_S)
        if self._taking is not None:
            self._taking.cancel()
