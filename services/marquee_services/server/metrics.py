"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The metrics of one server, in their own registry.

    Attributes:
        registry: The Prometheus registry.
        calls: Latency of calls in seconds, including failed calls, by method and status code.
        in_progress: Number of calls in progress.
        releases: Has the value 1 for the id of the release in service.
        degraded: Number of degraded answers by reason (gateway only).
        answers: Number of Recommend answers by origin: `cached`, `precomputed` with the release,
            or `computed` (gateway only).
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Histogram(
            "marquee_call_seconds",
            "Latency of calls in seconds.",
            ("method", "code"),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "marquee_calls_in_progress", "Number of calls in progress.", registry=self.registry
        )
        self.releases = Gauge(
            "marquee_release_in_service",
            "1 for the release in service.",
            ("release_id",),
            registry=self.registry,
        )
        self.degraded = Counter(
            "marquee_degraded_answers_total",
            "Number of degraded answers by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.answers = Counter(
            "marquee_answers_total",
            "Number of Recommend answers by origin: cached, precomputed or computed.",
            ("origin",),
            registry=self.registry,
        )

    def set_release(self, release_id: str) -> None:
        """Sets which release is in service."""
        self.releases.clear()
        self.releases.labels(release_id).set(1)

    def serve(self, port: int, host: str) -> None:
        """Serves the metrics over HTTP in a background thread, unless the port is 0.

        Args:
            port: The TCP port; 0 for none.
            host: The host name or address to listen on.
        """
        if port:
            start_http_server(port, host, registry=self.registry)
