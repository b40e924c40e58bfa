"""Makes calls to the servers of backends with metrics, tracing, request ids and priorities."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import Metric

from marquee.v1 import scoring_service_pb2
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.server.admission.priority import priority_metadata
from marquee_services.server.admission.queue_metrics import QueueMetrics
from marquee_services.server.telemetry import call_scope, tracing
from marquee_services.server.telemetry.metrics import Metrics, gauge, stable_durations

_DESCRIPTOR = scoring_service_pb2.DESCRIPTOR.services_by_name["ScoringService"]
_SERVICE = _DESCRIPTOR.full_name
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STATES = {True: "healthy", False: "unhealthy"}
_HEDGES = ("late", "moved", "trial")


class BackendMonitor:
    """Makes calls to backends, and records their latency and outcome.

    Attributes:
        metrics: The metrics of the server.
        queues: The metrics of the queues in front of the backends.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metrics."""
        self.queues = QueueMetrics(metrics)
        self.metrics = metrics
        self._seconds = Histogram(
            "marquee_backend_call_seconds",
            "Latency of calls to backends in seconds, measured in the gateway.",
            ("backend", "method", "code"),
            buckets=_BUCKETS_S,
            registry=metrics.registry,
        )
        self._hedges = Counter(
            "marquee_hedged_calls_total",
            "Number of calls to backends that were sent to a second replica: late ones, those "
            "moved from a replica whose circuit opened, and trials of such a replica.",
            ("backend", "why"),
            registry=metrics.registry,
        )
        names = {method.name: f"{_SERVICE}/{method.name}" for method in _DESCRIPTOR.methods}
        metrics.read_on_scrape(lambda: [stable_durations("client", self._seconds, names)])
        # `labels()` costs more than an observation.
        self._known: dict[tuple[str, str, str], Histogram] = {}

    def watch(self, backends: Sequence[AnyBackend]) -> None:
        """Adds metrics of the state of backends."""
        for backend in backends:
            for why in _HEDGES:
                self._hedges.labels(backend.name, why)
        self.metrics.read_on_scrape(lambda: _states(backends))

    def hedged(self, backend: str, why: str) -> None:
        """Counts a call that is sent to a second replica.

        Args:
            backend: The backend's name.
            why: `late`, `moved` or `trial`.
        """
        self._hedges.labels(backend, why).inc()

    async def call(
        self, backend: str, address: str, stub: Any, method: str, request: Any, timeout: float
    ) -> Any:
        """Calls a server.

        Args:
            backend: The backend's name.
            address: The server's address.
            stub: The stub of its connection.
            method: The name of the method.
            request: The request.
            timeout: Seconds until the call times out.

        Raises:
            grpc.aio.AioRpcError: The call failed.
        """
        scope, tracer, span = call_scope.current(), tracing.active(), None
        metadata = priority_metadata()
        if scope is not None:
            metadata += ((call_scope.REQUEST_ID_KEY, scope.request_id),)
        if tracer is not None:
            parent = None if scope is None else scope.span
            span = tracer.begin_client_span(f"{_SERVICE}/{method}", parent, address)
            metadata += tracer.headers(span)
        code, start = "OK", time.perf_counter()
        try:
            return await getattr(stub, method)(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self._record(backend, method, code, time.perf_counter() - start, span)

    def _record(self, backend: str, method: str, code: str, seconds: float, span: Any) -> None:
        key = backend, method, code
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._seconds.labels(*key)
        found.observe(seconds, None if span is None else tracing.exemplar(span))
        if span is not None:
            tracing.end_span(span, code, is_client=True)


def _states(backends: Iterable[AnyBackend]) -> Iterator[Metric]:
    healthy: dict[tuple[str], float] = {}
    counts: dict[tuple[str, str], float] = {}
    replicas: dict[tuple[str, str], float] = {}
    circuits: dict[tuple[str, str], float] = {}
    for backend in backends:
        healthy[(backend.name,)] = backend.healthy
        counts |= {(backend.name, state): 0.0 for state in _STATES.values()}
        for address, is_healthy in backend.replica_states():
            counts[backend.name, _STATES[is_healthy]] += 1
            replicas[backend.name, address] = is_healthy
            circuits[backend.name, address] = address in backend.open_circuits()
    yield gauge(
        "marquee_backend_healthy",
        "Whether a replica of the backend answers.",
        healthy,
        ("backend",),
    )
    yield gauge(
        "marquee_backend_replicas",
        "Number of the backend's replicas by state.",
        counts,
        ("backend", "state"),
    )
    yield gauge(
        "marquee_replica_healthy",
        "Whether a replica answers.",
        replicas,
        ("backend", "address"),
    )
    yield gauge(
        "marquee_replica_circuit_open",
        "Whether a replica is left out because its calls are late or fail.",
        circuits,
        ("backend", "address"),
    )
