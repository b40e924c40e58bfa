"""Metrics of feedback."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge

from marquee_services.gateway.feedback.follower import FeedbackFollower
from marquee_services.gateway.feedback.fresh import FreshFeedback


class FeedbackMetrics:
    """The metrics of feedback.

    Attributes:
        events: The number of events sent to this gateway by outcome: `recorded`, `duplicate` or
            `ignored`.
    """

    def __init__(
        self, registry: CollectorRegistry, follower: FeedbackFollower, fresh: FreshFeedback
    ) -> None:
        """Registers the metrics.

        Args:
            registry: The gateway's registry.
            follower: Reads the log.
            fresh: Holds the feedback in memory.
        """
        self.events = Counter(
            "marquee_feedback_events_total",
            "Number of events sent to this gateway: recorded, duplicate or ignored.",
            ("outcome",),
            registry=registry,
        )

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"marquee_feedback_{name}", text, registry=registry)

        lag = gauge("lag_seconds", "Seconds since the end of the feedback log was last reached.")
        lag.set_function(lambda: math.inf if follower.lag is None else follower.lag or 0.0)
        position = gauge("log_position", "Position up to which the feedback log has been read.")
        position.set_function(lambda: fresh.position)
        users = gauge("users", "Number of users whose feedback is in memory.")
        users.set_function(lambda: len(fresh))
        size = gauge("memory_bytes", "Approximate size of the feedback in memory.")
        size.set_function(lambda: fresh.nbytes)
        evicted = gauge(
            "evicted_users", "Number of users whose feedback was dropped because of the limit."
        )
        evicted.set_function(lambda: fresh.evicted)
