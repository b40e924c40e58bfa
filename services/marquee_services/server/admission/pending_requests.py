"""Limits how many calls wait for their request messages, which a client may never send."""

from __future__ import annotations

import time
from typing import Any

import grpc

from marquee_services.server.connections.connection_guard import ConnectionGuard
from marquee_services.server.telemetry.metrics import Metrics
from marquee_services.server.time_limit import TimeLimit

# A request that was sent arrives within this time, unless the server itself is busy.
_MIN_WAIT_S = 0.25

Context = grpc.aio.ServicerContext[Any, Any]


class PendingRequests:
    """The calls that wait for their request messages, in order of arrival.

    When there are too many, each new call ends the one that has waited longest, as if that call had
    timed out. Clients that send no requests thus displace each other, not the clients that do.
    """

    def __init__(self, most: int, guard: ConnectionGuard, metrics: Metrics) -> None:
        """Starts without calls.

        Args:
            most: The most calls that may wait.
            guard: Records the connections whose requests do not arrive.
            metrics: Receives the number of waiting calls.
        """
        self._most = most
        self._guard = guard
        self._waiting: dict[TimeLimit, tuple[Context, float]] = {}
        metrics.waiting.set_function(lambda: len(self._waiting))

    def add(self, limit: TimeLimit, context: Context) -> None:
        """Adds a call.

        Args:
            limit: The time limit of the call.
            context: The call.
        """
        now = time.monotonic()
        if len(self._waiting) >= self._most:
            oldest, (late, began) = next(iter(self._waiting.items()))
            if now - began > _MIN_WAIT_S:
                del self._waiting[oldest]
                self._guard.record_missing_request(late)
                oldest.end()
        self._waiting[limit] = context, now

    def remove(self, limit: TimeLimit) -> None:
        """Removes a call, because its request has arrived or the call has ended."""
        self._waiting.pop(limit, None)
