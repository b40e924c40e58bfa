"""Prometheus metrics of a server: calls, releases, process and build.

Metrics of a state, such as releases, queues and certificates, are computed when they are scraped,
so they cost nothing in between.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TypeVar

import grpc
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from marquee.v1 import errors_pb2, types_pb2

_LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_CODES = tuple(code.name for code in grpc.StatusCode)
_Labels = TypeVar("_Labels", bound=tuple[str, ...])
_REASON_PREFIX = "ERROR_REASON_"


class Metrics:
    """The metrics of one server, in their own registry.

    Attributes:
        registry: The Prometheus registry.
        calls: Latency of calls in seconds, including failed calls, by method and status code.
        errors: Number of calls that ended with an error, by the reason in its details.
        in_progress: Number of calls in progress.
        waiting: Number of calls whose request has not arrived.
        connections_ended: Number of connections ended because of abandoned calls.
        releases: 1 for the id of the release in service.
        degraded: Number of degraded answers by reason (gateway only).
        answers: Number of Recommend answers by origin: `cached`, `precomputed` with the release,
            or `computed` (gateway only).
    """

    def __init__(self, methods: Sequence[str] = ()) -> None:
        """Creates the metrics.

        Args:
            methods: The methods whose calls are counted, by full name `package.Service/Method`.
        """
        self.registry = CollectorRegistry()
        self.calls = Histogram(
            "marquee_call_seconds",
            "Latency of calls in seconds.",
            ("method", "code"),
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        for method in methods:
            self.calls.labels(_short(method), "OK")
        self.registry.register(_CallCounts(self.calls, methods))
        self.errors = Counter(
            "marquee_call_errors_total",
            "Number of calls that ended with an error, by the reason in its details.",
            ("reason",),
            registry=self.registry,
        )
        # The first value of each enumeration is UNSPECIFIED.
        for reason in errors_pb2.ErrorReason.keys()[1:]:
            self.errors.labels(reason.removeprefix(_REASON_PREFIX))
        self.in_progress = Gauge(
            "marquee_calls_in_progress", "Number of calls in progress.", registry=self.registry
        )
        self.waiting = Gauge(
            "marquee_calls_waiting_for_request",
            "Number of calls whose request has not arrived.",
            registry=self.registry,
        )
        self.connections_ended = Counter(
            "marquee_connections_ended_total",
            "Number of connections ended because of abandoned calls.",
            registry=self.registry,
        )
        self.limit = Gauge(
            "marquee_calls_limit", "Limit of calls in progress.", registry=self.registry
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
        for reason in types_pb2.DegradedReason.keys()[1:]:
            self.degraded.labels(reason)
        self.answers = Counter(
            "marquee_answers_total",
            "Number of Recommend answers by origin: cached, precomputed or computed.",
            ("origin",),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        build = Gauge(
            "marquee_build_info",
            "1, labelled with the versions of Marquee, Python and gRPC.",
            ("version", "python", "grpc"),
            registry=self.registry,
        )
        build.labels(
            version("marquee-recommender"), platform.python_version(), version("grpcio")
        ).set(1)

    def set_release(self, release_id: str) -> None:
        """Sets which release is in service."""
        self.releases.clear()
        self.releases.labels(release_id).set(1)

    def read_on_scrape(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Adds metrics that a function computes whenever the metrics are scraped."""
        self.registry.register(_OnScrape(read))

    def serve(self, port: int, host: str) -> None:
        """Serves the metrics over HTTP in a background thread, unless the port is 0.

        Args:
            port: The TCP port; 0 to not serve them.
            host: The host name or address to listen on.
        """
        if port:
            start_http_server(port, host, registry=self.registry)


def gauge(
    name: str, text: str, values: Mapping[_Labels, float], labels: Sequence[str] = ()
) -> GaugeMetricFamily:
    """Creates a gauge for a function of `Metrics.read_on_scrape`.

    Args:
        name: The metric's name.
        text: The help text.
        values: The value for each combination of labels.
        labels: The names of the labels.
    """
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def counter(
    name: str, text: str, values: Mapping[_Labels, float], labels: Sequence[str] = ()
) -> CounterMetricFamily:
    """Creates a counter for a function of `Metrics.read_on_scrape`; arguments as for `gauge`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def stable_durations(side: str, own: Histogram, full_names: Mapping[str, str]) -> Metric:
    """Converts a histogram of calls to the stable names of OpenTelemetry's semantic conventions.

    Args:
        side: `server` or `client`.
        own: The histogram, with the labels `method` and `code`; other labels are kept.
        full_names: The full name, `package.Service/Method`, by the name of each method.
    """
    (family,) = own.collect()
    found = Metric(
        f"rpc_{side}_call_duration_seconds",
        f"Duration of calls (rpc.{side}.call.duration of OpenTelemetry).",
        "histogram",
    )
    for sample in family.samples:
        suffix = sample.name.removeprefix(family.name)
        if suffix == "_created":
            continue
        labels = dict(sample.labels)
        name = labels.pop("method")
        labels["rpc_system_name"] = "grpc"
        labels["rpc_method"] = full_names.get(name, name)
        labels["rpc_response_status_code"] = labels.pop("code")
        found.add_sample(found.name + suffix, labels, sample.value)
    return found


class _OnScrape(Collector):
    """Metrics that a function computes when they are scraped."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()

    def describe(self) -> Iterable[Metric]:
        """Describes no metrics, so that registering does not read a state that may not exist."""
        return ()


class _CallCounts(Collector):
    """The number of calls for every code, and latencies under OpenTelemetry's stable names.

    Both are derived from `Metrics.calls` when they are scraped. Every pair of method and code
    exists from the start, so that the first call of a pair counts as an increase.
    """

    def __init__(self, calls: Histogram, methods: Sequence[str]) -> None:
        self._calls = calls
        self._full_names = {_short(method): method for method in methods}

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        counts = {(name, code): 0.0 for name in self._full_names for code in _CODES}
        (family,) = self._calls.collect()
        for sample in family.samples:
            if sample.name.endswith("_count"):
                counts[sample.labels["method"], sample.labels["code"]] = sample.value
        yield stable_durations("server", self._calls, self._full_names)
        yield counter("marquee_calls", "Number of calls by code.", counts, ("method", "code"))


def _short(method: str) -> str:
    return method.rpartition("/")[2]
