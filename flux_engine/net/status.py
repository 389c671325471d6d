"""What a status other than 200 means for the client who asked for a file."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from flux_engine.errors import InputFetchFailed

MAX_RETRY_AFTER_S: Final = 7 * 24 * 3600
PASSING: Final = (408, 425, 429)  # besides 5xx: waiting may help


def refused(status: int, headers: Mapping[str, str]) -> InputFetchFailed:
    """What an answer other than 200 means for the client."""
    if headers.get("cf-mitigated") == "challenge":
        return InputFetchFailed(
            f"the host answers with a check for humans (status {status}), which blocks downloads; use another host",
            status=status,
        )
    if status in (401, 403):
        return InputFetchFailed(
            f"the host refuses the download (status {status}): it needs a token or a public link", status=status
        )
    if status in (404, 410):
        return InputFetchFailed(f"there is nothing at the URL (status {status}); check its spelling", status=status)
    if status in PASSING or status >= 500:
        wait = asked_to_wait(headers.get("Retry-After", ""))
        return InputFetchFailed(
            f"the host answered with status {status} in place of the file; {wait}send the job again",
            retryable=True,
            status=status,
        )
    return InputFetchFailed(
        f"the host answered with status {status} in place of the file; check the URL in a browser", status=status
    )


def asked_to_wait(header: str) -> str:
    """A server's `Retry-After` in words, such as `wait 120 s, as it asks, and `; empty without one that can be read."""
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = int(text)
    else:
        try:
            seconds = math.ceil(parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, OverflowError, OSError):
            return ""
    return f"wait {seconds} s, as it asks, and " if 0 < seconds <= MAX_RETRY_AFTER_S else ""
