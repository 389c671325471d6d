"""Dashboard and alert rules: loaded, and of metrics that gateway and worker really have."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from builder import dashboard
from flux_engine.gateway.watching.metrics import GatewayMetrics
from flux_engine.queues.worker_metrics import WorkerMetrics
from tests.deploy.test_kubernetes import ROOT

METRIC = re.compile(r"\bflux_(?:gateway|worker)_[a-z_]+")
ALERTS = yaml.safe_load((ROOT / "deploy" / "watching" / "alerts.yaml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def known() -> set[str]:
    text = (GatewayMetrics().page() + WorkerMetrics().text()).decode()
    families = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
    names = {name for name, _ in families}
    return names | {
        f"{name}{suffix}" for name, kind in families if kind == "histogram" for suffix in ("_bucket", "_count")
    }


def used(query: str) -> set[str]:
    return set(METRIC.findall(query))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_alerts_are_of_metrics_that_are_there_and_say_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert used(str(rule["expr"]))
    assert used(str(rule["expr"])) <= known()
    assert rule["annotations"].keys() == {"summary", "action"}
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_no_worker_is_a_number_that_an_alert_can_compare() -> None:
    """A sum of no series is nothing, and nothing is never less than 1."""
    (expr,) = [str(rule["expr"]) for rule in RULES if rule["alert"] == "FluxNoWorker"]
    metrics = GatewayMetrics()
    metrics.workers_are({})
    (states,) = re.findall(r'flux_gateway_workers\{state=~"([^"]+)"\}', expr)
    for state in states.split("|"):
        assert f'flux_gateway_workers{{state="{state}"}} 0.0' in metrics.page().decode()


@pytest.mark.parametrize("panel", dashboard.PANELS, ids=lambda panel: str(panel[0]))
def test_panels_are_of_metrics_that_are_there(panel: tuple[str, str, tuple[tuple[str, str], ...]]) -> None:
    for query, _ in panel[2]:
        assert used(query)
        assert used(query) <= known()


def test_the_checked_in_dashboard_is_the_one_that_is_made() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text()
    held = json.loads(dashboard.text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in held["panels"]]
    assert len(set(places)) == len(places) == len(dashboard.PANELS)
