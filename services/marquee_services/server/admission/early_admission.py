"""Queues and refuses calls before their requests are read, at the lowest cost that gRPC allows.

Under overload most calls are refused, and each refusal takes time from answers. A call that would
have to wait anyway is therefore queued before anything is read or set up, and may be refused there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import grpc

from marquee_services.errors import Draining, Overloaded
from marquee_services.server.admission.calls import ARRIVED, CallsInProgress
from marquee_services.server.admission.refusals import Refusals
from marquee_services.server.telemetry import tracing

EarlyAdmission: TypeAlias = Callable[[str], AbstractAsyncContextManager[None] | None]
"""Returns the context in which a call to the named method runs, or None if it need not be queued.

The context waits for a slot when it is entered, and raises Overloaded or Draining if the call is
refused.
"""


def no_early_admission(_method: str) -> None:
    """Queues no calls before their requests are read."""


class EarlyAdmissionHandlers:
    """Creates handlers that queue a call before its request is read."""

    def __init__(self, calls: CallsInProgress, refusals: Refusals) -> None:
        """Creates a factory of handlers.

        Args:
            calls: Measures how long cancelled calls took.
            refusals: Refuses calls.
        """
        self._calls = calls
        self._refusals = refusals

    @property
    def is_possible(self) -> bool:
        """Whether calls may be queued early: not with tracing, where every call needs a span."""
        return tracing.active() is None

    def handler(
        self,
        name: str,
        slot: AbstractAsyncContextManager[None],
        answer: grpc.RpcMethodHandler[Any, Any],
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Returns a handler that answers a call once it has a slot, or refuses it.

        Args:
            name: The name of the method.
            slot: The context in which the call runs; raises Overloaded or Draining on
                entry if it is refused.
            answer: The handler that answers the call: it reads a stream of requests itself and
                returns a single message.
        """
        start = time.perf_counter()
        behaviour: Any = answer.stream_unary

        async def call(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            ARRIVED.set(start)
            begun = False
            try:
                async with slot:
                    begun = True
                    return await behaviour(requests, context)
            except (Overloaded, Draining) as error:
                await self._refusals.send(name, error, start, context)
            except asyncio.CancelledError:
                if not begun:  # The caller has gone, or the deadline has passed.
                    self._calls.seconds_of(name, "CANCELLED").observe(time.perf_counter() - start)
                raise

        return grpc.stream_unary_rpc_method_handler(call, None, answer.response_serializer)
