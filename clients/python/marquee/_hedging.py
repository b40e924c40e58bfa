"""Hedged calls: a read without a response is also sent to other gateways; the first response wins.

A gateway that freezes (a suspended process, a lost machine) does not close its connections, and
gRPC needs about half a second to detect this. A read that is waiting for such a gateway is sent
again before that. gRPC balances round-robin, so of two consecutive calls at least one goes to a
different gateway than the first attempt. A hedge therefore consists of two calls.

The technique is described by Dean and Barroso, "The Tail at Scale" (2013). A budget prevents hedges
from multiplying the load when all gateways are slow.
"""

from __future__ import annotations

import asyncio
import queue
import time
from typing import TYPE_CHECKING, Any

from marquee._lazy import LazyModule

if TYPE_CHECKING:
    import grpc
else:
    grpc = LazyModule("grpc")

HEDGE_AFTER_S = 0.25
"""Default time in seconds after which a read is hedged."""

# A call is hedged no later than after this share of its timeout.
_MAX_DELAY_SHARE = 0.25
_HEDGE_ATTEMPTS = 2
# The number of attempts that each call adds to the budget, and its maximum. On average one call in
# twenty may be hedged, and all calls in progress when a gateway freezes.
_BUDGET_PER_CALL = 0.1
_MAX_BUDGET = 100.0
# These status codes are about the gateway rather than the call, so another gateway may succeed.
_INCONCLUSIVE = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"})


class HedgeBudget:
    """The number of attempts that hedges may add. It is approximate if threads share it."""

    def __init__(self) -> None:
        """Creates a full budget."""
        self._balance = _MAX_BUDGET

    def add_call(self) -> None:
        """Adds the share of a call to the budget."""
        self._balance = min(_MAX_BUDGET, self._balance + _BUDGET_PER_CALL)

    def try_spend(self) -> bool:
        """Returns whether a call may be hedged, and if so, deducts the hedge from the budget."""
        if self._balance < _HEDGE_ATTEMPTS:
            return False
        self._balance -= _HEDGE_ATTEMPTS
        return True


class Hedging:
    """Makes the hedged calls of one client."""

    def __init__(self, after_s: float) -> None:
        """Takes the time in seconds after which a call is hedged."""
        self._after_s = after_s
        self._budget = HedgeBudget()

    def call(self, method: Any, request: Any, options: dict[str, Any]) -> Any:
        """Makes a blocking call.

        Args:
            method: The gRPC method, a `grpc.UnaryUnaryMultiCallable`.
            request: The request.
            options: The keyword arguments of the call, including its `timeout` in seconds.

        Raises:
            grpc.RpcError: The call failed.
        """
        due = time.monotonic() + options["timeout"]
        first = method.future(request, **options)
        attempts = [first]
        try:
            try:
                return first.result(timeout=self._delay(options["timeout"]))
            except grpc.FutureTimeoutError:
                pass
            if not self._budget.try_spend():
                return first.result()
            ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(_HEDGE_ATTEMPTS):
                left = max(0.001, due - time.monotonic())
                attempts.append(method.future(request, **{**options, "timeout": left}))
            for attempt in attempts:
                attempt.add_done_callback(ended.put)
            for _ in attempts:
                last = ended.get()
                if last.code().name not in _INCONCLUSIVE:
                    return last.result()
            return first.result()
        finally:
            for attempt in attempts:
                attempt.cancel()  # no effect if it has ended

    async def call_async(self, method: Any, request: Any, options: dict[str, Any]) -> Any:
        """Makes a call of an asyncio client; see `call`.

        Args:
            method: The gRPC method, a `grpc.aio.UnaryUnaryMultiCallable`.
            request: The request.
            options: The keyword arguments of the call, including its `timeout` in seconds.

        Raises:
            grpc.RpcError: The call failed.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + options["timeout"]
        first = method(request, **options)
        attempts, tasks = [first], set[asyncio.Future[Any]]()
        decided: asyncio.Future[Any] = loop.create_future()

        async def attempt(call: Any) -> None:
            if (await call.code()).name not in _INCONCLUSIVE and not decided.done():
                decided.set_result(call)
                first.cancel()

        def hedge() -> None:
            if first.done() or not self._budget.try_spend():
                return
            for _ in range(_HEDGE_ATTEMPTS):
                left = max(0.001, due - loop.time())
                attempts.append(method(request, **{**options, "timeout": left}))
                tasks.add(asyncio.ensure_future(attempt(attempts[-1])))

        timer = loop.call_later(self._delay(options["timeout"]), hedge)
        try:
            try:
                return await first
            except grpc.RpcError as error:
                if not tasks or error.code().name not in _INCONCLUSIVE:
                    raise
                await asyncio.wait(tasks)
                if not decided.done():
                    raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not decided.done() or (task is not None and task.cancelling()):
                    raise
            return await decided.result()
        finally:
            timer.cancel()
            for call in attempts:
                call.cancel()
            for waiting in tasks:
                waiting.cancel()

    def _delay(self, timeout: float) -> float:
        self._budget.add_call()
        return min(self._after_s, _MAX_DELAY_SHARE * timeout)
