"""The gateway's numbers, as Prometheus reads them from /metrics.

Labels have a bounded number of values: routes by their pattern, methods and statuses as HTTP knows them. Nothing is
counted by user. Counters are of this process; Prometheus adds up the replicas. `waiting`, `in_flight` and `workers` are
the same on every replica and are read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from flux_engine.gateway.task import Task
from flux_engine.gateway.webhooks.delivery import Attempt

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNMATCHED: Final = "unmatched"
WORKER_STATES: Final = ("idle", "initializing", "running")  # of every queue
QUICK_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
LONG_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600)
NAMESPACE: Final = "flux_gateway"


class GatewayMetrics:
    """One set a process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, namespace=NAMESPACE, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(name, what, labels, namespace=NAMESPACE, registry=registry)

        def histogram(name: str, what: str, label: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, what, (label,), namespace=NAMESPACE, registry=registry, buckets=buckets)

        self._requests = counter("requests", "Requests", "method", "route", "status")
        self._seconds = histogram("request_seconds", "Until the answer began", "route", QUICK_S)
        self._open = gauge("requests_open", "Requests under way, streams included")
        self._tasks = counter("tasks", "Tasks that reached a status, as this replica saw it", "type", "status")
        self._queued = histogram("task_queued_seconds", "From request to worker", "type", LONG_S)
        self._ran = histogram("task_run_seconds", "From worker to result", "type", LONG_S)
        self._work = counter("work", "Units of work done", "type")
        self._hits = counter("cache_hits", "Tasks answered from the cache", "type")
        self._attempts = counter("task_attempts", "Submissions of the tasks that ended", "type")
        self._webhooks = counter("webhook_attempts", "Webhooks sent, by answer", "answer")
        self._waiting = gauge("tasks_waiting", "Tasks that wait in the line")
        self._in_flight = gauge("tasks_in_flight", "Tasks with the queue")
        self._workers = gauge("workers", "Workers, as the queue tells them", "state")
        self._up = gauge("dependency_up", "Whether it answers", "name")

    def request_began(self) -> None:
        self._open.inc()

    def request_ended(self) -> None:
        self._open.dec()

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route` is a pattern; `seconds` are those until the answer began."""
        name = route or UNMATCHED
        self._requests.labels(method if method in METHODS else "other", name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)

    def task_changed(self, task: Task) -> None:
        """`task` has reached a new status."""
        self._tasks.labels(task.kind, task.status).inc()
        if not task.is_final:
            return
        begun, ended = task.started_at, task.finished_at
        if begun is not None and ended is not None:
            self._queued.labels(task.kind).observe(max(0.0, begun - task.created_at))
            self._ran.labels(task.kind).observe(max(0.0, ended - begun))
        self._work.labels(task.kind).inc(max(0.0, task.work_used or 0.0))
        self._attempts.labels(task.kind).inc(max(0, task.attempt))
        if task.cached:
            self._hits.labels(task.kind).inc()

    def webhook_sent(self, attempt: Attempt) -> None:
        self._webhooks.labels("none" if attempt.status is None else f"{attempt.status // 100}xx").inc()

    def line_is(self, *, waiting: int, in_flight: int) -> None:
        self._waiting.set(waiting)
        self._in_flight.set(in_flight)

    def workers_are(self, by_state: Mapping[str, int]) -> None:
        """A state without workers is 0, not left out: an alert on a sum of nothing would never fire."""
        self._workers.clear()
        for state, count in {**dict.fromkeys(WORKER_STATES, 0), **by_state}.items():
            self._workers.labels(state).set(count)

    def dependency_is(self, name: str, *, up: bool) -> None:
        self._up.labels(name).set(1 if up else 0)

    def page(self) -> bytes:
        """What /metrics answers, as MEDIA_TYPE."""
        return generate_latest(self._registry)
