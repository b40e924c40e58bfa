"""Limits the calls in progress, and measures how long each call takes."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

from prometheus_client import Histogram

from marquee_services.errors import Draining, Overloaded, ServiceError, TooManyBatches
from marquee_services.server.call_operations import abort
from marquee_services.server.connections.connection_guard import ConnectionGuard, Context
from marquee_services.server.status import error_trailers, reason_name
from marquee_services.server.telemetry.call_scope import CallScope
from marquee_services.server.telemetry.metrics import Metrics

# What ends the task of a call whose caller has gone.
_GONE = asyncio.CancelledError, GeneratorExit
# gRPC hands over the next call within this many turns of the event loop.
_TURNS = 6
# How long a batch waits for a slot if its caller has been refused repeatedly, and the mean time
# between its attempts.
_MAX_WAIT_S, _MEAN_WAIT_S = 5.0, 1.0

ARRIVED: ContextVar[float] = ContextVar("arrived", default=0.0)
"""When the call of the current task arrived, by `time.perf_counter`, if it was queued before its
request was read; otherwise 0."""


@dataclass(frozen=True)
class CallLimits:
    """Limits on the number of calls in progress and on their duration.

    Attributes:
        calls: The most single calls.
        batches: The most calls that are answered with a stream. One caller may have half of them.
        default_deadline_s: Deadline in seconds of calls whose client set none.
        max_deadline_s: The longest deadline in seconds; longer ones are shortened to it.
        receive_s: Seconds that a request may take to arrive.
        stall_s: Seconds for which the caller of a stream may leave a response unread.
        exempt: Names of methods that are answered even beyond `calls`, because they cost little and
            help to diagnose overload.
        guarded: Whether connections with too many abandoned calls are closed.
    """

    calls: int
    batches: int
    default_deadline_s: float
    max_deadline_s: float
    receive_s: float
    stall_s: float
    exempt: frozenset[str] = frozenset()
    guarded: bool = True


class CallsInProgress:
    """Counts the calls in progress, and refuses calls beyond the limits.

    A call is in progress once its request has arrived. Until then it holds hardly any memory; such
    calls are bounded by the streams per connection and by `CallLimits.receive_s`.

    Attributes:
        arrived: The number of calls that have arrived, including refused ones.
        singles: The number of single calls in progress.
        batches: The number of batches in progress by caller.
        last_single_at: When a single call last started or ended, in seconds of
            `time.perf_counter`.
        open: The calls that have not ended, including those whose requests have not arrived.
        draining: Set when the server starts to shut down.
        guard: Closes connections with too many abandoned calls.
    """

    def __init__(self, limits: CallLimits, metrics: Metrics) -> None:
        """Starts without calls.

        Args:
            limits: The limits.
            metrics: Receives the number of calls in progress and their latencies.
        """
        self._limits = limits
        self._metrics = metrics
        self.arrived = 0
        self.singles = 0
        self.batches: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._refused_in = 0
        self.last_single_at = 0.0
        self.open: set[ObservedCall] = set()
        self.draining = asyncio.Event()
        self._endings: set[asyncio.Future[Any]] = set()
        self.guard = ConnectionGuard(metrics, limits.guarded)
        metrics.limit.set(limits.calls)
        metrics.in_progress.set_function(lambda: self.singles + self.batches.total())
        # Histograms by method and status code: `labels()` costs more than an observation.
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def check(self, name: str) -> None:
        """Checks that a single call may start.

        Raises:
            Overloaded: The limit of calls in progress is reached.
        """
        if self.singles >= self._limits.calls and name not in self._limits.exempt:
            raise Overloaded(str(self._limits.calls))

    def check_batch(self, caller: str) -> None:
        """Checks that a batch may start.

        Args:
            caller: The caller's identity or host.

        Raises:
            TooManyBatches: The limit of all batches in progress, or of this caller's, is reached.
        """
        most = self._batches_per_caller
        if self.batches[caller] >= most:
            raise TooManyBatches(str(most), retry_after_s=1.0)
        if self.batches.total() >= self._limits.batches:
            raise TooManyBatches(str(self._limits.batches), retry_after_s=1.0)

    async def wait_for_batch(self, caller: str, seconds: float) -> None:
        """Checks that a batch may start; if its caller is refused repeatedly, waits until it may.

        A caller that retries without a pause would otherwise be refused thousands of times a
        second, at the expense of other callers.

        Args:
            caller: The caller's identity or host.
            seconds: The most seconds to wait.

        Raises:
            TooManyBatches: A limit of batches in progress is reached.
            Draining: The server started to shut down while the batch waited.
        """
        try:
            self.check_batch(caller)
        except TooManyBatches:
            second = int(time.monotonic())
            if second != self._refused_in:
                self._refused_in = second
                self._refused.clear()
            self._refused[caller] += 1
            if self._refused[caller] <= self._batches_per_caller:
                raise
            await self._wait_for_slot(caller, min(seconds, _MAX_WAIT_S))

    async def _wait_for_slot(self, caller: str, seconds: float) -> None:
        """Waits until a batch may start; raises like `check_batch` when the time is over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = _MEAN_WAIT_S * random.uniform(0.5, 1.5)  # noqa: S311 - spreads the attempts
            with suppress(TimeoutError):
                await asyncio.wait_for(self.draining.wait(), min(pause, left))
                raise Draining
            with suppress(TooManyBatches):
                self.check_batch(caller)
                return
        self.check_batch(caller)

    @property
    def _batches_per_caller(self) -> int:
        """The most batches of one caller."""
        return max(1, self._limits.batches // 2)

    def had_single_within(self, seconds: float) -> bool:
        """Returns whether a single call is in progress, or was within the last given seconds."""
        return bool(self.singles) or time.perf_counter() - self.last_single_at < seconds

    async def wait_for_handover(self) -> None:
        """Waits for as long as gRPC takes to hand over a call that has arrived.

        That is a few turns of the event loop.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def end(self, call: ObservedCall, error: ServiceError) -> None:
        """Ends a call with an error, and frees its resources.

        Args:
            call: The call, whose task may be waiting for the caller to read a response.
            error: The error.
        """
        call.code = error.code.name
        self._metrics.errors.labels(reason_name(error)).inc()
        ending = asyncio.ensure_future(call.send(error))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def seconds_of(self, name: str, code: str) -> Histogram:
        """Returns the latency histogram of a method's calls that ended with a status code."""
        found = self._seconds.get((name, code))
        if found is None:
            found = self._seconds[name, code] = self._metrics.calls.labels(name, code)
        return found


class ObservedCall:
    """Measures a call: adds it to the calls in progress and records its latency.

    Attributes:
        name: Name of the method.
        scope: The call's request id and trace.
        caller: The caller of a batch: its identity, or its host if it has none; "" for a single
            call.
        code: Name of the status code that the call ends with.
        begun: Whether the request has arrived, so that the call is in progress.
    """

    __slots__ = (
        "_calls",
        "_context",
        "_start",
        "_task",
        "begun",
        "caller",
        "code",
        "name",
        "scope",
    )

    def __init__(
        self,
        calls: CallsInProgress,
        name: str,
        scope: CallScope,
        context: Context,
        peer: str = "",
    ) -> None:
        """Creates the measurement of a call.

        Args:
            calls: The calls in progress.
            name: Name of the method.
            scope: The call's request id and trace.
            context: The call.
            peer: The peer of a batch, as gRPC names it; "" for a single call.
        """
        self._calls = calls
        self._context = context
        self.name = name
        self.scope = scope
        # Without tokens, callers on the same host or behind the same proxy look the same.
        self.caller = peer.rpartition(":")[0] if peer.startswith("ip") else peer
        self.code = "OK"
        self.begun = False

    def __enter__(self) -> Self:
        self._start = ARRIVED.get() or time.perf_counter()
        self._task = asyncio.current_task()
        self._calls.open.add(self)
        return self

    async def send(self, error: ServiceError) -> None:
        """Sends an error to the caller, and cancels the task that answers the call."""
        trailers = error_trailers(error, self.scope.request_id)
        # The status is queued behind unread responses; the call's task must not wait.
        sending = asyncio.ensure_future(abort(self._context, error.code, str(error), trailers))
        await asyncio.sleep(0)
        if self._task is not None:
            self._task.cancel()
        await asyncio.wait([sending])
        sending.exception()

    @property
    def peer(self) -> str:
        """The peer, as gRPC names it."""
        peer: str = self._context.peer()
        return peer

    @property
    def seconds(self) -> float:
        """Seconds since the call arrived."""
        return time.perf_counter() - self._start

    def identify(self, name: str) -> None:
        """Sets the identity of a batch's caller, once it is known; "" if there is none.

        Callers that share a host, for example behind a proxy, then have separate limits.
        """
        if name and self.caller:
            self.caller = name

    def check(self) -> None:
        """Checks that the call may start; also called before its message is read.

        Raises:
            Overloaded: A limit of calls in progress is reached.
        """
        if self.caller:
            self._calls.check_batch(self.caller)
        else:
            self._calls.check(self.name)

    def begin(self) -> None:
        """Marks the call as in progress.

        Raises:
            Overloaded: A limit of calls in progress was reached while the message was read.
        """
        self.check()
        self.begun = True
        if self.caller:
            self._calls.batches[self.caller] += 1
        else:
            self._calls.singles += 1
            self._calls.last_single_at = self._start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._calls.open.discard(self)
        # When the caller of a stream goes away, the generator is closed instead of cancelled.
        if error is not None and self.code == "OK" and isinstance(error, _GONE):
            self.code = "CANCELLED"
        now = time.perf_counter()
        if self.begun and self.caller:
            self._calls.batches[self.caller] -= 1
            if not self._calls.batches[self.caller]:
                del self._calls.batches[self.caller]
        elif self.begun:
            self._calls.singles -= 1
            self._calls.last_single_at = now
        if self.code != "CANCELLED":
            self._calls.guard.record_answer(self._context)
        elif not (self.begun and self.caller):  # Leaving a batch early is legitimate.
            self._calls.guard.record_reset(self._context)
        seconds = now - self._start
        self._calls.seconds_of(self.name, self.code).observe(seconds, self.scope.exemplar)
        self.scope.end(self.code)


class Probe(ObservedCall):
    """A probe: it is always admitted, and neither counted nor recorded."""

    __slots__ = ()

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def check(self) -> None:
        """Admits the probe."""

    def begin(self) -> None:
        """Marks the probe as begun, without counting it."""
        self.begun = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Records nothing."""
