"""Metrics of the adaptive limit, and of the queues in which calls wait for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Gauge, Histogram
from prometheus_client.metrics_core import Metric

from marquee_services.server.admission.adaptive_limit import AdaptiveLimit
from marquee_services.server.telemetry.metrics import Metrics, gauge

_LABELS = ("backend", "queue")
_WAIT_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_USERS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def watch_limit(metrics: Metrics, limit: AdaptiveLimit) -> None:
    """Adds gauges of an adaptive limit."""
    for name, text, read in (
        ("limit", "Limit of the cost of answers being computed.", lambda: limit.limit),
        ("in_progress", "Cost of the answers being computed.", lambda: limit.in_progress),
        ("waiting", "Calls queued until their answers are computed.", lambda: limit.waiting),
        ("refused", "Calls refused because of the limit.", lambda: limit.refused),
    ):
        family = Gauge(f"marquee_computing_{name}", text, registry=metrics.registry)
        family.set_function(read)


class QueueMetrics:
    """The metrics of all queues of a server.

    The labels of a queue are the backend that processes it, and its name. The replicas of a backend
    share their labels.
    """

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metrics."""
        self._wait = Histogram(
            "marquee_queue_wait_seconds",
            "Seconds that a call waited until its batch started.",
            _LABELS,
            buckets=_WAIT_BUCKETS_S,
            registry=metrics.registry,
        )
        self._users = Histogram(
            "marquee_batch_users",
            "Users in a batch.",
            _LABELS,
            buckets=_USERS_BUCKETS,
            registry=metrics.registry,
        )
        # The lengths and limits of the queues that exist.
        self._queues: dict[QueueMeter, tuple[Callable[[], int], int]] = {}
        metrics.read_on_scrape(self._read)

    def meter(self, backend: str, queue: str) -> QueueMeter:
        """Creates the meter of a queue."""
        labels = backend, queue
        return QueueMeter(self, labels, self._wait.labels(*labels), self._users.labels(*labels))

    def watch(self, meter: QueueMeter, length: Callable[[], int], limit: int) -> None:
        """Reports the length and the limit of a queue until `forget`."""
        self._queues[meter] = length, limit

    def forget(self, meter: QueueMeter) -> None:
        """Stops reporting a queue."""
        self._queues.pop(meter, None)

    def _read(self) -> Iterator[Metric]:
        lengths: dict[tuple[str, str], float] = {}
        limits: dict[tuple[str, str], float] = {}
        for meter, (length, limit) in list(self._queues.items()):
            lengths[meter.labels] = lengths.get(meter.labels, 0) + length()
            limits[meter.labels] = limits.get(meter.labels, 0) + limit
        yield gauge(
            "marquee_queue_users",
            "Queued queries; in the gateway, each is one user.",
            lengths,
            _LABELS,
        )
        yield gauge("marquee_queue_limit_users", "Limit of queued queries.", limits, _LABELS)


class QueueMeter:
    """Measures one queue.

    Attributes:
        labels: The names of the backend and the queue.
    """

    def __init__(
        self, metrics: QueueMetrics, labels: tuple[str, str], wait: Histogram, users: Histogram
    ) -> None:
        """Creates a meter; use `QueueMetrics.meter`."""
        self.labels = labels
        self._metrics = metrics
        self._wait = wait
        self._users = users

    def watch(self, length: Callable[[], int], limit: int) -> None:
        """Starts reporting the queue's length and limit."""
        self._metrics.watch(self, length, limit)

    def forget(self) -> None:
        """Stops reporting the queue."""
        self._metrics.forget(self)

    def record_batch(self, waits: Iterable[float], users: int) -> None:
        """Records the start of a batch.

        Args:
            waits: The seconds that each call of the batch has waited.
            users: The total weight of the batch.
        """
        for seconds in waits:
            self._wait.observe(seconds)
        self._users.observe(users)
