"""Refusals that cost as little as gRPC allows.

Under overload most calls are refused, and each refusal takes time from an answer. So a call that
would be refused anyway gets a handler that ends it before anything is read or set up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import grpc
from prometheus_client import Counter, Histogram

from marquee_services.errors import Overloaded
from marquee_services.server import tracing
from marquee_services.server.call_scope import REQUEST_ID_KEY, request_id_of
from marquee_services.server.calls import CallsInProgress
from marquee_services.server.metrics import Metrics
from marquee_services.server.status import DETAILS_KEY, reason_name, status_details


class QuickRefusals:
    """Makes handlers that refuse a call, and counts the refusals like other calls."""

    def __init__(self, calls: CallsInProgress, metrics: Metrics) -> None:
        """Takes where calls are counted."""
        self._calls = calls
        self._metrics = metrics
        # `labels()` costs more than counting.
        self._counters: dict[tuple[str, type[Overloaded]], tuple[Histogram, Counter]] = {}

    @property
    def is_possible(self) -> bool:
        """Whether calls may be refused without more ado; not if they are traced."""
        return tracing.active() is None

    def handler(
        self, name: str, error: Overloaded, metadata: Sequence[tuple[str, Any]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that refuses one call.

        Args:
            name: The name of the method, which answers with a single message.
            error: Why the call is refused.
            metadata: The call's metadata, from which the request id is echoed.
        """
        seconds, errors = self._counters_of(name, error)
        start = time.perf_counter()
        request_id = request_id_of(metadata)
        trailers = (DETAILS_KEY, status_details(error, request_id)), (REQUEST_ID_KEY, request_id)

        async def refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            errors.inc()
            seconds.observe(time.perf_counter() - start)
            await context.abort(error.code, str(error), trailers)

        return grpc.stream_unary_rpc_method_handler(refuse, None, None)

    def _counters_of(self, name: str, error: Overloaded) -> tuple[Histogram, Counter]:
        key = name, type(error)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = (
                self._calls.seconds_of(name, error.code.name),
                self._metrics.errors.labels(reason_name(error)),
            )
        return found
