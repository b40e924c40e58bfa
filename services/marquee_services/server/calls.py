"""The calls in progress: how many there may be, and how long each took."""

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

from marquee_services.errors import Overloaded, TooManyBatches
from marquee_services.server.call_scope import CallScope
from marquee_services.server.connection_guard import ConnectionGuard, Context
from marquee_services.server.metrics import Metrics

# gRPC hands over the next call in so many turns of the event loop.
_TURNS = 6
# Seconds that a batch waits for a place if its caller has just been refused often, and the mean of
# those after which it looks for one.
_LONGEST_WAIT_S, _WAIT_S = 5.0, 1.0

ARRIVED: ContextVar[float] = ContextVar("arrived", default=0.0)
"""When the call of the current task arrived, by `time.perf_counter`, if it waited before it began;
otherwise 0."""


@dataclass(frozen=True)
class CallLimits:
    """How many calls a server has in progress, and for how long.

    Attributes:
        calls: The most single calls.
        batches: The most calls that are answered by a stream. One caller may have half of them.
        default_deadline_s: Deadline in seconds of calls whose client set none.
        max_deadline_s: The longest deadline in seconds; later ones are brought forward.
        receive_s: Seconds that a request may take to arrive.
        stall_s: Seconds for which the caller of a stream may leave an answer unread.
        exempt: Names of methods that are answered beyond `calls`, because they cost little and tell
            what is the matter.
        guarded: Whether connections whose calls come to nothing are ended.
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
    """Counts the calls in progress, and refuses those beyond the limits.

    A call is in progress once its request has arrived. Calls that still wait for it hold no memory
    to speak of, and are bounded by the streams of each connection and by `CallLimits.receive_s`.

    Attributes:
        arrived: The number of calls that have arrived, refused ones included.
        singles: The number of single calls in progress.
        batches: The number of batches in progress, of each caller.
        last_single_at: When a single call was last begun or ended, in seconds of
            `time.perf_counter`.
        endings: Tasks that end calls whose callers do not read.
        guard: Ends connections whose calls come to nothing.
    """

    def __init__(self, limits: CallLimits, metrics: Metrics) -> None:
        """Counts no calls yet.

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
        self.endings: set[asyncio.Future[Any]] = set()
        self.guard = ConnectionGuard(metrics, limits.guarded)
        metrics.limit.set(limits.calls)
        metrics.in_progress.set_function(lambda: self.singles + self.batches.total())
        # Histograms by method and status code: `labels()` costs more than an observation.
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def check(self, name: str) -> None:
        """Checks that a single call may begin.

        Raises:
            Overloaded: The limit of calls in progress is reached.
        """
        if self.singles >= self._limits.calls and name not in self._limits.exempt:
            raise Overloaded(str(self._limits.calls))

    def check_batch(self, caller: str) -> None:
        """Checks that a batch may begin.

        Args:
            caller: The caller's identity or host.

        Raises:
            TooManyBatches: The limit of batches in progress, or of this caller's, is reached.
        """
        own = self._own_batches
        if self.batches[caller] >= own:
            raise TooManyBatches(str(own), retry_after_s=1.0)
        if self.batches.total() >= self._limits.batches:
            raise TooManyBatches(str(self._limits.batches), retry_after_s=1.0)

    async def wait_for_batch(self, caller: str, seconds: float) -> None:
        """Waits until a batch may begin, if its caller is refused all the time.

        A caller who does not heed the refusals would otherwise be refused thousands of times a
        second, at the cost of others.

        Args:
            caller: The caller's identity or host.
            seconds: The most seconds to wait.

        Raises:
            TooManyBatches: It may not begin.
        """
        try:
            self.check_batch(caller)
        except TooManyBatches:
            second = int(time.monotonic())
            if second != self._refused_in:
                self._refused_in = second
                self._refused.clear()
            self._refused[caller] += 1
            if self._refused[caller] <= self._own_batches:
                raise
            await self._wait_for_place(caller, min(seconds, _LONGEST_WAIT_S))

    async def _wait_for_place(self, caller: str, seconds: float) -> None:
        """Waits for so long until a batch may begin; raises as `check_batch` if it may not."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = _WAIT_S * random.uniform(0.5, 1.5)  # noqa: S311 - so that they come apart
            await asyncio.sleep(min(pause, left))
            with suppress(TooManyBatches):
                self.check_batch(caller)
                return
        self.check_batch(caller)

    @property
    def _own_batches(self) -> int:
        """The most batches of one caller."""
        return max(1, self._limits.batches // 2)

    def had_single_within(self, seconds: float) -> bool:
        """Whether single calls are in progress, or were in the last so many seconds."""
        return bool(self.singles) or time.perf_counter() - self.last_single_at < seconds

    async def until_next_arrived(self) -> None:
        """Waits for as long as gRPC takes to hand over a call that has arrived.

        It hands over one call in a few turns of the event loop.
        """
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def seconds_of(self, name: str, code: str) -> Histogram:
        """The latency histogram of a method's calls that ended with a status code."""
        found = self._seconds.get((name, code))
        if found is None:
            found = self._seconds[name, code] = self._metrics.calls.labels(name, code)
        return found


class ObservedCall:
    """Measures a call: adds it to the calls in progress and records its latency.

    Attributes:
        name: Name of the method.
        scope: Its request id and its trace.
        caller: A batch's caller: the identity, or the host of one without; "" for a single call.
        code: Name of the status code that the call ends with.
        begun: Whether the request has arrived, and the call is in progress.
    """

    __slots__ = ("_calls", "_context", "_start", "begun", "caller", "code", "name", "scope")

    def __init__(
        self,
        calls: CallsInProgress,
        name: str,
        scope: CallScope,
        context: Context,
        peer: str = "",
    ) -> None:
        """Observes a call.

        Args:
            calls: The calls in progress.
            name: Name of the method.
            scope: Its request id and its trace.
            context: The call.
            peer: The connection of a batch, as gRPC names it; "" for a single call.
        """
        self._calls = calls
        self._context = context
        self.name = name
        self.scope = scope
        # Without tokens, callers on the same host or behind a proxy cannot be told apart.
        self.caller = peer.rpartition(":")[0] if peer.startswith("ip") else peer
        self.code = "OK"
        self.begun = False

    def __enter__(self) -> Self:
        self._start = ARRIVED.get() or time.perf_counter()
        return self

    @property
    def seconds(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self._start

    def identify(self, name: str) -> None:
        """Takes the identity of a batch's caller, once it is known; "" if there is none.

        Callers who share a host, for example behind a proxy, then have shares of their own.
        """
        if name and self.caller:
            self.caller = name

    def check(self) -> None:
        """Checks that the call may begin; done before its message is read as well.

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
        # When the caller of a stream goes away, its generator is closed and not cancelled.
        if self.code == "OK" and isinstance(error, asyncio.CancelledError | GeneratorExit):
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
            self._calls.guard.answered(self._context)
        elif not (self.begun and self.caller):  # Batches may be left after some answers.
            self._calls.guard.reset(self._context)
        seconds = now - self._start
        self._calls.seconds_of(self.name, self.code).observe(seconds, self.scope.exemplar)
        self.scope.end(self.code)


class Probe(ObservedCall):
    """A probe, which is neither counted nor refused nor recorded."""

    __slots__ = ()

    def check(self) -> None:
        """Admits it."""

    def begin(self) -> None:
        """Does not count it."""
        self.begun = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Records nothing."""
