"""A platform with a small handler on the loopback interface, for the clients of both languages."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from local_platform.faults import WORKER_ROUTES, FaultPlan
from local_platform.job import Limits
from local_platform.server import Platform
from tests.runpod.pool import LoggedPool

PAINTER: Final = (sys.executable, "-u", str(Path(__file__).parents[1] / "runpod" / "handlers" / "painter.py"))
CLIENT_ROUTES: Final = frozenset({"run", "status", "retry", "cancel"})


@asynccontextmanager
async def painting(*, workers: int = 1, resets: float = 0.0) -> AsyncIterator[tuple[Platform, LoggedPool]]:
    """`resets` is the share of requests, the clients' and the workers', whose connection is reset. With
    them alone a lease ends soon, also one whose worker stalls: its job is done twice, and has to be `in silence`, since
    progress that comes after the other's result reopens it for ever."""
    faults = FaultPlan(
        rates={"reset": resets / 2, "lost_answer": resets / 2}, routes=WORKER_ROUTES | CLIENT_ROUTES, seed=1
    )
    async with Platform(faults=faults, limits=Limits(lease_s=3 if resets else 600)) as platform:
        async with LoggedPool(platform, command=PAINTER) as pool:
            await pool.start(workers)
            yield platform, pool
