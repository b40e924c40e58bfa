"""Bounds how many calls wait for their requests, which a client may never send."""

from __future__ import annotations

import time
from typing import Any

import grpc

from marquee_services.server.connection_guard import ConnectionGuard
from marquee_services.server.metrics import Metrics
from marquee_services.server.time_limit import TimeLimit

# A request that has been sent arrives sooner, unless the server itself is busy.
_PATIENCE_S = 0.25

Context = grpc.aio.ServicerContext[Any, Any]


class Arrivals:
    """The calls that wait for their requests, in the order in which they began.

    While there are too many of them, each new one ends the one that has waited longest, as if its
    time were up. So clients that send no requests take each other's places, not those of clients
    that do.
    """

    def __init__(self, most: int, guard: ConnectionGuard, metrics: Metrics) -> None:
        """Begins without calls.

        Args:
            most: The most calls that may wait.
            guard: Is told of connections whose requests do not arrive.
            metrics: Receives the number of calls that wait.
        """
        self._most = most
        self._guard = guard
        self._waiting: dict[TimeLimit, tuple[Context, float]] = {}
        metrics.waiting.set_function(lambda: len(self._waiting))

    def add(self, limit: TimeLimit, context: Context) -> None:
        """Adds a call.

        Args:
            limit: What limits the time of the call.
            context: The call.
        """
        now = time.monotonic()
        if len(self._waiting) >= self._most:
            oldest, (late, began) = next(iter(self._waiting.items()))
            if now - began > _PATIENCE_S:
                del self._waiting[oldest]
                self._guard.without_request(late)
                oldest.end()
        self._waiting[limit] = context, now

    def remove(self, limit: TimeLimit) -> None:
        """Removes a call whose request has arrived, or that has ended."""
        self._waiting.pop(limit, None)
