"""Results on their way to the platform: posted again where that may help, and never printed."""

from __future__ import annotations

import logging
from typing import Any, Final

RESULT_ATTEMPTS: Final = 8
RETRIED_STATUSES: Final = frozenset({408, 425, 429})

log = logging.getLogger(__name__)


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
