"""What happens around a request, seen by its client, in the log, in the numbers and in the trace."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, replace

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from httpx2 import ASGITransport, AsyncClient
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flux_engine.gateway.task import Task
from flux_engine.gateway.watching.metrics import GatewayMetrics
from flux_engine.gateway.watching.middleware import Watched
from flux_engine.gateway.watching.timing import phase
from flux_engine.gateway.watching.tracing import tracer_provider
from flux_engine.gateway.webhooks.delivery import Attempt
from flux_engine.logs import set_up_logs

TRACE = "0af7651916cd43dd8448eb211c80319c"
LOG = logging.getLogger("flux_engine.test")


@dataclass
class Site:
    """A small application, watched."""

    client: AsyncClient
    metrics: GatewayMetrics
    spans: InMemorySpanExporter

    def page(self) -> str:
        return self.metrics.page().decode()


@pytest.fixture
def site() -> Site:
    metrics, spans = GatewayMetrics(), InMemorySpanExporter()
    provider = tracer_provider({}, exporter=spans)
    app = FastAPI(telemetry={"tracer_provider": provider, "metrics": False, "logs": False, "operation_spans": False})
    app.add_middleware(Watched, metrics=metrics)

    @app.api_route("/task/{task_id}/status", methods=["GET", "POST"])
    async def status(task_id: str, request: Request) -> dict[str, str]:
        with phase("ledger"):
            LOG.info("inside")
        return {"traceparent": request.state.traceparent, "request_id": request.state.request_id}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> object:
            for _ in range(3):
                yield b"x"

        return StreamingResponse(parts())  # type: ignore[arg-type]

    transport = ASGITransport(app=app, raise_app_exceptions=False)
    return Site(AsyncClient(transport=transport, base_url="http://gateway"), metrics, spans)


async def test_one_id_and_one_trace_from_client_to_log(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("INFO", as_json=True)
    sent = {"X-Request-ID": "client-7", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    answer = await site.client.post("/task/secret-name/status", headers=sent)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "client-7"
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", answer.json()["traceparent"])
    assert "b7ad6b7169203331" not in answer.json()["traceparent"]  # a span of ours, below the client's
    assert [(line["event"], line["request_id"], line["trace_id"]) for line in told] == [
        ("inside", "client-7", TRACE),
        ("request", "client-7", TRACE),
    ]
    assert (told[1]["route"], told[1]["status"]) == ("POST /task/{task_id}/status", 200)
    assert "secret-name" not in str(told)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "a b",
        "x" * 129,
        "a\tb",
        "ü",
        '{"event": "job done"}',
        "%0aevent",
    ],
)
async def test_an_id_that_no_log_should_hold_is_replaced(given: str, site: Site) -> None:
    answer = await site.client.get("/task/a/status", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize("given", ["", "zz", f"00-{'0' * 32}-b7ad6b7169203331-01", f"ff-{TRACE}-b7ad6b7169203331-01"])
async def test_a_trace_that_is_none_is_replaced(given: str, site: Site) -> None:
    said = (await site.client.get("/task/a/status", headers={"traceparent": given})).json()["traceparent"]
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", said)  # 2 says that the id is random
    assert "0" * 32 not in said


async def test_the_client_learns_what_its_time_was_spent_on(site: Site) -> None:
    said = (await site.client.get("/task/a/status")).headers["server-timing"]
    assert re.fullmatch(r"ledger;dur=[0-9.]+, total;dur=[0-9.]+", said)


async def test_numbers_by_route_and_none_by_path(site: Site) -> None:
    for path in ("/task/a/status", "/task/b/status", "/nowhere/1", "/nowhere/2", "/stream"):
        await site.client.get(path)
    await site.client.request("BREW", "/task/a/status")
    await site.client.get("/broken")
    page = site.page()
    assert 'flux_gateway_requests_total{method="GET",route="/task/{task_id}/status",status="200"} 2.0' in page
    assert 'flux_gateway_requests_total{method="GET",route="unmatched",status="404"} 2.0' in page
    assert 'method="other"' in page
    assert "flux_gateway_requests_open 0.0" in page
    assert "nowhere" not in page
    assert "BREW" not in page


async def test_numbers_of_tasks_and_webhooks(site: Site) -> None:
    begun = Task(id="t", user="ada", kind="image", status="queued", created_at=100.0)
    done = replace(begun, status="completed", started_at=102.0, finished_at=109.0, work_used=4.5, attempt=2)
    for task in (begun, done, replace(done, cached=True, work_used=0.0)):
        site.metrics.task_changed(task)
    site.metrics.webhook_sent(Attempt(0.0, 204, "", 3))
    site.metrics.webhook_sent(Attempt(0.0, None, "no answer", 3))
    site.metrics.line_is(waiting=3, in_flight=2)
    site.metrics.workers_are({"running": 2, "idle": 1, "throttled": 3})
    site.metrics.workers_are({"running": 1})
    site.metrics.dependency_is("redis", up=True)
    page = site.page()
    for line in (
        'flux_gateway_tasks_total{status="completed",type="image"} 2.0',
        'flux_gateway_work_total{type="image"} 4.5',
        'flux_gateway_cache_hits_total{type="image"} 1.0',
        'flux_gateway_task_run_seconds_sum{type="image"} 14.0',
        'flux_gateway_webhook_attempts_total{answer="2xx"} 1.0',
        'flux_gateway_webhook_attempts_total{answer="none"} 1.0',
        "flux_gateway_tasks_waiting 3.0",
        'flux_gateway_workers{state="running"} 1.0',
        'flux_gateway_workers{state="idle"} 0.0',
        'flux_gateway_dependency_up{name="redis"} 1.0',
    ):
        assert line in page
    assert 'state="throttled"' not in page
    assert "ada" not in page
