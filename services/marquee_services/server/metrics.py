"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The metrics of one server, in a registry of its own.

    Attributes:
        registry: The registry.
        calls: Seconds of each call, errors included, by method and status code.
        in_progress: Calls in progress.
        releases: 1 for the release in service.
        degraded: Degraded answers by reason (gateway).
        answers: Single recommendations by where the answer came from: `kept` from before, the
            `release`, or `computed` (gateway).
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Histogram(
            "marquee_call_seconds",
            "Seconds of a call.",
            ("method", "code"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "marquee_calls_in_progress", "Calls in progress.", registry=self.registry
        )
        self.releases = Gauge(
            "marquee_release_in_service",
            "1 for the release in service.",
            ("release_id",),
            registry=self.registry,
        )
        self.degraded = Counter(
            "marquee_degraded_answers_total",
            "Degraded answers by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.answers = Counter(
            "marquee_answers_total",
            "Single recommendations by where the answer came from: kept, release or computed.",
            ("origin",),
            registry=self.registry,
        )

    def in_service(self, release_id: str) -> None:
        """Records which release is in service."""
        self.releases.clear()
        self.releases.labels(release_id).set(1)

    def serve(self, port: int) -> None:
        """Serves the metrics over HTTP from a thread; port 0 does nothing."""
        if port:
            start_http_server(port, registry=self.registry)
