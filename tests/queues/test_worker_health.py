"""What Kubernetes and Prometheus are told of a Celery worker."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from flux_engine.queues.worker_health import Health, WorkerHealth
from flux_engine.queues.worker_metrics import WorkerMetrics

MADE: dict[str, Any] = {
    "cached": False,
    "timings": {"total_ms": 2500.0, "denoise_ms": 2000.0, "upload_ms": 250.0},
    "usage": {"work": 4.2, "gpu_seconds": 2.1},
    "parameters": {"loras": [{"path": "mosaic", "scale": 1.0}]},
}


async def answers(health: Health, metrics: WorkerMetrics | None = None) -> dict[str, tuple[int, str]]:
    served = WorkerHealth(lambda: health, metrics or WorkerMetrics(), port=0)
    port = await served.start()
    said = {}
    try:
        async with aiohttp.ClientSession() as session:
            for path in ("/healthz", "/readyz", "/metrics", "/else"):
                async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                    said[path] = (response.status, await response.text())
    finally:
        await served.close()
    return said


@pytest.mark.parametrize(
    ("health", "alive", "ready"), [("warming", 200, 503), ("ready", 200, 200), ("broken", 503, 503)]
)
async def test_a_warming_worker_is_told_from_a_dead_one(health: Health, alive: int, ready: int) -> None:
    said = await answers(health)
    assert (said["/healthz"][0], said["/readyz"][0]) == (alive, ready)
    assert json.loads(said["/readyz"][1]) == {"status": health}
    assert said["/else"][0] == 404


async def test_jobs_are_counted_by_what_became_of_them() -> None:
    metrics = WorkerMetrics()
    ends: list[tuple[str, dict[str, Any] | None]] = [
        ("completed", MADE),
        ("completed", {**MADE, "cached": True}),
        ("failed", {"error": json.dumps({"code": "lora_invalid"})}),
        ("failed", {"error": "no JSON"}),
        ("cancelled", None),
    ]
    for outcome, result in ends:
        metrics.begun(waited_s=0.3)
        metrics.ended(outcome, took_s=2.5, result=result)
    text = (await answers("ready", metrics))["/metrics"][1]
    for line in (
        'flux_worker_jobs_total{code="",outcome="completed"} 2.0',
        'flux_worker_jobs_total{code="lora_invalid",outcome="failed"} 1.0',
        'flux_worker_jobs_total{code="internal",outcome="failed"} 1.0',
        'flux_worker_jobs_total{code="",outcome="cancelled"} 1.0',
        "flux_worker_cache_hits_total 1.0",
        "flux_worker_lora_jobs_total 1.0",
        'flux_worker_stage_seconds_total{stage="denoise"} 2.0',
        "flux_worker_gpu_seconds_total 2.1",
        "flux_worker_work_total 4.2",
        "flux_worker_running_jobs 0.0",
        "flux_worker_queue_wait_seconds_count 5.0",
    ):
        assert line in text.splitlines()
    resident = next(line for line in text.splitlines() if line.startswith("flux_worker_resident_bytes "))
    assert float(resident.split()[1]) > 1e6
