"""What a request spends its time on, told to its client in Server-Timing.

    with phase("auth"):
        principal = await security.authenticate(...)

Phases of one request add up by name, whichever task of it they are in. Outside of a request they cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_phases: ContextVar[dict[str, float] | None] = ContextVar("phases", default=None)


@contextmanager
def request_phases() -> Iterator[Mapping[str, float]]:
    """Within, phases are collected: milliseconds by name."""
    found: dict[str, float] = {}
    token = _phases.set(found)
    try:
        yield found
    finally:
        _phases.reset(token)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Time the body as `name`, a token of HTTP."""
    found, begun = _phases.get(), time.perf_counter()
    try:
        yield
    finally:
        if found is not None:
            found[name] = found.get(name, 0.0) + (time.perf_counter() - begun) * 1000


def server_timing(phases: Mapping[str, float], total_ms: float) -> str:
    """The header's value."""
    return ", ".join(f"{name};dur={ms:.1f}" for name, ms in {**phases, "total": total_ms}.items())
