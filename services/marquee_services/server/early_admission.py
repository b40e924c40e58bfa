"""Calls that wait before their request is read, and refusals that cost as little as gRPC allows.

Under overload most calls are refused, and each refusal takes time from an answer. So a call that
would have to wait anyway waits before anything is read or set up, and may be refused there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import grpc
from prometheus_client import Counter, Histogram

from marquee_services.errors import Overloaded
from marquee_services.server import tracing
from marquee_services.server.call_scope import REQUEST_ID_KEY, request_id_of
from marquee_services.server.calls import ARRIVED, CallsInProgress
from marquee_services.server.metrics import Metrics
from marquee_services.server.status import DETAILS_KEY, reason_name, status_details

EarlyAdmission: TypeAlias = Callable[[str], AbstractAsyncContextManager[None] | None]
"""Returns what surrounds a call of a method that has to wait before its request is read, or None.

It raises Overloaded on entry if the call is refused.
"""


def no_early_admission(_method: str) -> None:
    """Lets no call wait."""


class EarlyAdmissionHandlers:
    """Makes handlers that let a call wait and may refuse it, and counts that like other calls."""

    def __init__(self, calls: CallsInProgress, metrics: Metrics) -> None:
        """Takes where calls are counted."""
        self._calls = calls
        self._metrics = metrics
        # `labels()` costs more than counting.
        self._counters: dict[tuple[str, type[Overloaded]], tuple[Histogram, Counter]] = {}

    @property
    def is_possible(self) -> bool:
        """Whether calls may wait and be refused without more ado; not if they are traced."""
        return tracing.active() is None

    def handler(
        self,
        name: str,
        place: AbstractAsyncContextManager[None],
        answer: grpc.RpcMethodHandler[Any, Any],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that answers one call once it has a place, or refuses it.

        Args:
            name: The name of the method.
            place: Surrounds the call; raises Overloaded on entry if it is refused.
            answer: The handler that answers it, which reads a stream of requests itself and
                returns a single message.
        """
        start = time.perf_counter()
        behaviour: Any = answer.stream_unary

        async def call(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            ARRIVED.set(start)
            begun = False
            try:
                async with place:
                    begun = True
                    return await behaviour(requests, context)
            except Overloaded as error:
                seconds, errors = self._counters_of(name, error)
                errors.inc()
                seconds.observe(time.perf_counter() - start)
                request_id = request_id_of(context.invocation_metadata() or ())
                details = status_details(error, request_id)
                trailers = (DETAILS_KEY, details), (REQUEST_ID_KEY, request_id)
                await context.abort(error.code, str(error), trailers)
            except asyncio.CancelledError:
                if not begun:  # Its caller has gone, or its time is up.
                    self._calls.seconds_of(name, "CANCELLED").observe(time.perf_counter() - start)
                raise

        return grpc.stream_unary_rpc_method_handler(call, None, answer.response_serializer)

    def _counters_of(self, name: str, error: Overloaded) -> tuple[Histogram, Counter]:
        key = name, type(error)
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = (
                self._calls.seconds_of(name, error.code.name),
                self._metrics.errors.labels(reason_name(error)),
            )
        return found
