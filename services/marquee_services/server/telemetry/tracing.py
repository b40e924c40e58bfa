"""Tracing with OpenTelemetry (extra `otel`), configured by its `OTEL_*` environment variables.

Tracing is off, and OpenTelemetry is not imported, unless `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_TRACES_EXPORTER` is set. Spans are named by the
semantic conventions for RPC.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_SWITCHES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
)
# Codes that count as server errors in the semantic conventions for gRPC.
_SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_CLOSE_TIMEOUT_S = 3.0


class TracingError(Exception):
    """Tracing is configured, but OpenTelemetry is not installed."""


class Tracer:
    """Starts spans, and propagates their context (W3C Trace Context)."""

    def __init__(self, service: str, exporter: SpanExporter | None = None) -> None:
        """Creates a tracer that exports spans in the background.

        `OTEL_TRACES_SAMPLER` selects the sampler; by default, the parent span decides.

        Args:
            service: The name of the service, unless `OTEL_SERVICE_NAME` or
                `OTEL_RESOURCE_ATTRIBUTES` sets one.
            exporter: Exports the spans; None for the OTLP exporter that the environment configures.

        Raises:
            ModuleNotFoundError: OpenTelemetry is not installed.
        """
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: f"marquee-{service}"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _otlp_exporter()))
        self._tracer = self._provider.get_tracer("marquee")
        self._propagator = TraceContextTextMapPropagator()
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT

    def begin_server_span(self, method: str, metadata: Iterable[tuple[str, Any]]) -> Any:
        """Starts the span of an incoming call, as a child of the caller's span.

        Args:
            method: The method's full name as gRPC passes it, `/package.Service/Method`.
            metadata: The metadata of the call.
        """
        parent = self._propagator.extract(
            {key: value for key, value in metadata if key in ("traceparent", "tracestate")}
        )
        name = method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        return self._tracer.start_span(name, parent, self._server, attributes)

    def begin_client_span(self, method: str, parent: Any, address: str) -> Any:
        """Starts the span of a call to a backend.

        Args:
            method: The method's full name without the leading slash, `package.Service/Method`.
            parent: The span of the incoming call; None for none.
            address: The backend's address.
        """
        from opentelemetry import trace

        context = None if parent is None else trace.set_span_in_context(parent)
        host, _, port = address.rpartition(":")
        attributes: dict[str, Any] = {"rpc.system.name": "grpc", "rpc.method": method}
        attributes["server.address"] = host or address
        if port.isdigit():
            attributes["server.port"] = int(port)
        return self._tracer.start_span(method, context, self._client, attributes)

    def headers(self, span: Any) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that make a call part of a span's trace."""
        from opentelemetry import trace

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return tuple(carrier.items())

    def close(self) -> None:
        """Exports the remaining spans, for a few seconds at most, and stops exporting.

        Without the limit, an unreachable collector would delay the exit of the process.
        """
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_CLOSE_TIMEOUT_S)


_active: Tracer | None = None


def active() -> Tracer | None:
    """Returns the process's tracer; None if tracing is off."""
    return _active


def use(tracer: Tracer | None) -> None:
    """Sets the process's tracer; None turns tracing off."""
    global _active
    _active = tracer


def configure(service: str, environment: Mapping[str, str] = os.environ) -> None:
    """Turns tracing on if the environment configures it.

    Args:
        service: The name of the service.
        environment: The environment variables.

    Raises:
        TracingError: Tracing is configured, but the extra `otel` is not installed.
    """
    is_off = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER") == "none"
        or not any(environment.get(name) for name in _SWITCHES)
    )
    if is_off:
        return
    try:
        use(Tracer(service))
    except ModuleNotFoundError as error:
        raise TracingError(
            "tracing is configured (OTEL_…), but OpenTelemetry is not installed: "
            "pip install 'marquee-recommender[otel]'"
        ) from error


def shut_down() -> None:
    """Exports the remaining spans and turns tracing off."""
    if _active is not None:
        _active.close()
        use(None)


def end_span(span: Any, code: str, is_client: bool = False) -> None:
    """Ends a span with the name of the call's status code.

    A client span is an error for every code but OK; a server span only for server errors.
    """
    span.set_attribute("rpc.response.status_code", code)
    if code in _SERVER_ERRORS or (is_client and code != "OK"):
        from opentelemetry.trace import Status, StatusCode

        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def exemplar(span: Any) -> dict[str, str] | None:
    """Returns the ids of a sampled span, for an exemplar of a metric; None for other spans."""
    context = span.get_span_context()
    if not context.trace_flags.sampled:
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def log_fields(span: Any) -> dict[str, str]:
    """Returns the fields that link a log entry to a span."""
    context = span.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _otlp_exporter() -> SpanExporter:
    """Creates the exporter that `OTEL_EXPORTER_OTLP_PROTOCOL` names: gRPC or HTTP."""
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"
    )
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HTTPExporter,
    )

    return HTTPExporter()
