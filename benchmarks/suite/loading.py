"""What loads and what saves steps: weights read ahead against plain loading, the step cache by threshold."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any, Final

GIGABYTES: Final = 1.0
ROUNDS: Final = 2


async def measure() -> dict[str, Any]:
    """Seconds from a process's start to weights that were all touched, by way; and the step cache's rows."""
    return await asyncio.to_thread(_measured)


def _measured() -> dict[str, Any]:
    from benchmarks.step_cache import STEPS, compared

    command = (sys.executable, "-W", "ignore", "-m", "benchmarks.read_ahead")
    options = ("--gigabytes", str(GIGABYTES), "--rounds", str(ROUNDS))
    done = subprocess.run((*command, *options), capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ways: dict[str, list[float]] = {}
    for line in lines[1:]:
        ways.setdefault(line["mode"], []).append(line["total_s"])
    return {"disk": lines[0], "loading s": ways, "step cache": compared(), "steps": STEPS}
