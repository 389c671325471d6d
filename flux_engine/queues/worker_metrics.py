"""What a Celery worker counts for Prometheus: jobs, seconds by stage, cache hits, LoRA swaps, memory, how busy it is.

The numbers come from results, so that the worker itself knows nothing of metrics.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STAGES = ("load", "lora", "text", "denoise", "decode", "encode", "upload")
BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)


class WorkerMetrics:
    """One a process. `registry` holds them all; `text` is the exposition format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self._jobs = Counter("flux_worker_jobs", "Jobs by outcome", ["outcome", "code"], **own)
        self._hits = Counter("flux_worker_cache_hits", "Jobs answered from the result cache", **own)
        self._lora_jobs = Counter("flux_worker_lora_jobs", "Generated jobs that applied LoRAs", **own)
        self._stages = Counter("flux_worker_stage_seconds", "Seconds of jobs by stage", ["stage"], **own)
        self._gpu = Counter(
            "flux_worker_gpu_seconds", "Seconds that the device worked; its rate is the busy share", **own
        )
        self._work = Counter("flux_worker_work", "Megapixels x steps x pictures or frames, made", **own)
        self._waited = Histogram("flux_worker_queue_wait_seconds", "From hand-over to begin", buckets=BUCKETS_S, **own)
        self._seconds = Histogram("flux_worker_job_seconds", "From begin to end", buckets=BUCKETS_S, **own)
        self._running = Gauge("flux_worker_running_jobs", "Jobs in hand", **own)
        self._memory = Gauge("flux_worker_resident_bytes", "Memory of the process", **own)
        self._memory.set_function(resident_bytes)

    def begun(self, *, waited_s: float) -> None:
        self._waited.observe(max(0.0, waited_s))
        self._running.inc()

    def ended(self, outcome: str, *, took_s: float, result: Mapping[str, Any] | None) -> None:
        """`result` is the worker's, or its `{"error": ...}`; None where the job ended without one."""
        self._running.dec()
        self._seconds.observe(took_s)
        said = result or {}
        self._jobs.labels(outcome, _code(said)).inc()
        if "error" in said or not said:
            return
        if said.get("cached"):
            self._hits.inc()
            return
        timings = said.get("timings", {})
        for stage in STAGES:
            self._stages.labels(stage).inc(timings.get(f"{stage}_ms", 0.0) / 1000)
        usage = said.get("usage", {})
        self._gpu.inc(usage.get("gpu_seconds", 0.0))
        self._work.inc(usage.get("work", 0.0))
        if said.get("parameters", {}).get("loras"):
            self._lora_jobs.inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


def resident_bytes() -> float:
    """Of this process, from /proc; 0 where there is none."""
    try:
        return float(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0.0


def _code(result: Mapping[str, Any]) -> str:
    if "error" not in result:
        return ""
    try:
        return str(json.loads(str(result["error"]))["code"])
    except (ValueError, KeyError, TypeError):
        return "internal"
