"""OpenTelemetry's traces: one trace id from a client's request to the log of the worker that made the picture.

FastAPI makes the spans of requests. `traceparent` travels with the task to the queue, and the worker logs its trace id
with every line of the job. Spans are exported where OTEL_EXPORTER_OTLP_ENDPOINT is set, by the variables of
OpenTelemetry's own specification; without it ids are made all the same and nothing leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

SERVICE: Final = "flux-gateway"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def tracer_provider(environment: Mapping[str, str], *, exporter: SpanExporter | None = None) -> TracerProvider:
    """Where this process's spans go. Its `shutdown` sends what is left."""
    provider = TracerProvider(resource=Resource.create({"service.name": environment.get("OTEL_SERVICE_NAME", SERVICE)}))
    if exporter is None and any(environment.get(name) for name in ENDPOINTS):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def current_traceparent() -> str:
    """The current span as W3C's header has it; empty outside of one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def current_trace_id() -> str:
    """The current trace, as logs and traces name it; empty outside of one."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
