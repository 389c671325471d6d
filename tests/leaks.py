"""What no log line of the whole test run may hold: the tests' secrets, signed queries, prompts, results.

`seen` is given every line that the worker logs in this process, before the filter that would redact it, and every line
that a worker process prints. What it finds fails the test during which it was found: a worker's line may be one of the
test before. What comes after the last test fails that one.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from flux_engine.logs import JsonLine
from tests.servers import ACCESS_KEY, SECRET_KEY

SECRETS: Final = (ACCESS_KEY, SECRET_KEY)
PRIVATE: Final = re.compile(
    "|".join(
        (
            *(re.escape(secret) for secret in SECRETS),
            r"X-Amz-(Signature|Credential)=",
            r"Bearer \w",
            r"hf_[A-Za-z0-9]{8}",
            r"\b(red|white|yellow|orange|confidential) (sun|moon)\b",
            r"b64_json\W+\w{16}",
        )
    )
)

found: Final[list[str]] = []


def seen(line: str, *, said_by: str = "this process") -> None:
    """Look at one line of a log."""
    if PRIVATE.search(line):
        found.append(f"{said_by}: {line}")


class LeakHandler(logging.Handler):
    """Hands every record on as the line that the platform would get."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonLine())

    def emit(self, record: logging.LogRecord) -> None:
        seen(self.format(record))
