"""benchmarks/results.json: what each section measured, when, and on which machine.

A section is written as soon as it is there: a run that is broken off keeps what it has, and the next one goes on.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).parents[1] / "results.json"
LIBRARIES: Final = ("torch", "diffusers", "transformers", "runpod", "aiohttp", "redis", "boto3", "pillow")


def read(path: Path = RESULTS) -> dict[str, Any]:
    """The record by section; empty where there is none."""
    if not path.is_file():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def write(section: str, data: dict[str, Any], *, seconds: float, path: Path = RESULTS) -> None:
    """Put what `section` measured into the record; a record is there whole or not at all."""
    record = read(path)
    record[section] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "took_s": round(seconds),
        "machine": machine(),
        "data": data,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names this machine."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": processors[0].partition(":")[2].strip() if processors else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }
