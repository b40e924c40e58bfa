"""Refuses calls whose requests have not been read, at the lowest cost that gRPC allows."""

from __future__ import annotations

import time
from typing import Any

import grpc
from prometheus_client import Counter, Histogram

from marquee_services.errors import ServiceError
from marquee_services.server.admission.calls import CallsInProgress
from marquee_services.server.call_operations import abort
from marquee_services.server.status import error_trailers, reason_name
from marquee_services.server.telemetry.call_scope import request_id_of
from marquee_services.server.telemetry.metrics import Metrics


class Refusals:
    """Refuses calls, and counts them."""

    def __init__(self, calls: CallsInProgress, metrics: Metrics) -> None:
        """Has refused no call yet.

        Args:
            calls: Measures how long refused calls took.
            metrics: Counts refused calls by reason.
        """
        self._calls = calls
        self._metrics = metrics
        # `labels()` costs more than counting.
        self._counters: dict[tuple[str, type[ServiceError]], tuple[Histogram, Counter]] = {}

    async def send(
        self,
        name: str,
        error: ServiceError,
        start: float,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Ends a call with an error.

        Args:
            name: The name of the method.
            error: Why the call is refused.
            start: When the call arrived, by `time.perf_counter()`.
            context: The call.
        """
        seconds, errors = self._counters_of(name, error)
        errors.inc()
        seconds.observe(time.perf_counter() - start)
        trailers = error_trailers(error, request_id_of(context.invocation_metadata() or ()))
        await abort(context, error.code, str(error), trailers)

    def _counters_of(self, name: str, error: ServiceError) -> tuple[Histogram, Counter]:
        key = name, type(error)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = (
                self._calls.seconds_of(name, error.code.name),
                self._metrics.errors.labels(reason_name(error)),
            )
        return found
