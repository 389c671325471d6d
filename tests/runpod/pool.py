"""Workers whose every line is looked at, as the tests' own logs are (leaks.py)."""

from __future__ import annotations

from typing import Any

from local_platform.processes import OnLine
from local_platform.server import Platform
from local_platform.workers import WorkerPool
from tests import leaks


class LoggedPool(WorkerPool):
    """As WorkerPool, with its arguments."""

    def __init__(self, platform: Platform, *, on_line: OnLine | None = None, **rest: Any) -> None:
        def see(worker: str, line: str) -> None:
            leaks.seen(line, said_by=worker)
            if on_line is not None:
                on_line(worker, line)

        super().__init__(platform, on_line=see, **rest)
