"""The Grafana dashboard, deploy/watching/dashboard.json: `python -m builder.dashboard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).parents[1] / "deploy" / "watching" / "dashboard.json"
WIDTH: Final = 12
HEIGHT: Final = 8
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}

# Title, unit, and the queries with their legends.
PANELS: Final[tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]] = (
    (
        "Tasks that ended, a minute",
        "short",
        (("60 * sum by (status) (rate(flux_gateway_tasks_total[5m]))", "{{status}}"),),
    ),
    (
        "Tasks waiting and in flight",
        "short",
        (("sum(flux_gateway_tasks_waiting)", "waiting"), ("sum(flux_gateway_tasks_in_flight)", "in flight")),
    ),
    (
        "From request to worker, 50 and 95 %",
        "s",
        (
            ("histogram_quantile(0.5, sum by (le) (rate(flux_gateway_task_queued_seconds_bucket[5m])))", "50 %"),
            ("histogram_quantile(0.95, sum by (le) (rate(flux_gateway_task_queued_seconds_bucket[5m])))", "95 %"),
        ),
    ),
    ("Workers", "short", (("max by (state) (flux_gateway_workers)", "{{state}}"),)),
    (
        "Device busy, share of each worker",
        "percentunit",
        (("rate(flux_worker_gpu_seconds_total[5m])", "{{instance}}"),),
    ),
    ("Seconds of jobs by stage", "s", (("sum by (stage) (rate(flux_worker_stage_seconds_total[5m]))", "{{stage}}"),)),
    (
        "Answered from the cache",
        "percentunit",
        (
            (
                "sum(rate(flux_gateway_cache_hits_total[15m]))"
                ' / sum(rate(flux_gateway_tasks_total{status="completed"}[15m]))',
                "share",
            ),
        ),
    ),
    (
        "Failures by code",
        "short",
        (('sum by (code) (rate(flux_worker_jobs_total{outcome="failed"}[5m]))', "{{code}}"),),
    ),
    ("Jobs with LoRAs", "short", (("sum(rate(flux_worker_lora_jobs_total[5m]))", "a second"),)),
    ("Memory of workers", "bytes", (("flux_worker_resident_bytes", "{{instance}}"),)),
    ("Requests a second by route", "reqps", (("sum by (route) (rate(flux_gateway_requests_total[5m]))", "{{route}}"),)),
    (
        "Answer begins within, 95 %",
        "s",
        (
            (
                "histogram_quantile(0.95, sum by (le, route) (rate(flux_gateway_request_seconds_bucket[5m])))",
                "{{route}}",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model, version 39 of its schema."""
    variable = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "title": "FLUX",
        "uid": "flux",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": SOURCE}
        for i, (query, legend) in enumerate(queries)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": number % 2 * WIDTH, "y": number // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


def main() -> None:
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
