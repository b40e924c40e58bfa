"""An adaptive limit on the work in progress, which sheds load before latency grows.

The method is the gradient algorithm of Netflix's concurrency-limits
(https://github.com/Netflix/concurrency-limits), with the 99th percentile of the latency without
load in place of the minimum. The tolerated 99th percentile is a multiple of the one without load.
Under load, a 99th percentile is about twice the mean, so the mean may be half of what is tolerated.
If the mean latency of a window of calls is larger, the limit shrinks by the ratio of the two;
otherwise it grows by its square root:

    limit ← limit · (tolerance / 2) · p99 without load / mean    or    limit + √limit.

The limit is enforced only under overload (`overload`). A burst, or a caller that keeps a few dozen
calls in flight, is queued and not refused: refused callers retry, and a refusal costs as much as a
stored answer. `admission_queue` holds the queue and decides which calls are refused.

Calls of different classes cost different amounts of work, so latencies are compared within a class:
the formula uses the mean of latency / p99 without load.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NoReturn

from marquee_services.errors import Busy, Draining
from marquee_services.server.admission.admission_queue import AdmissionQueue, Refused
from marquee_services.server.admission.overload import OverloadDetector
from marquee_services.server.admission.unloaded_latency import ClassLatency

# A window ends after this many calls, but not before it has lasted this long.
_WINDOW_CALLS = 10
_WINDOW_S = 0.05
_MIN_GRADIENT = 0.5
# The weight of a window's result in the new limit.
_SMOOTHING = 0.3
# In windows without a refusal, the least latency is raised by this share per second.
_FORGET_PER_S = 0.01
# Up to this many calls in progress count as no load.
_UNLOADED_CALLS = 2
# Low enough for the latency without load to be measured.
_INITIAL_LIMIT = 64.0
# Under load, the 99th percentile of the latencies is about this multiple of their mean.
_SPREAD = 2.0
# A retry before the calls in progress have ended would be refused again.
_MIN_RETRY_S = 0.05
_RECENT_S = 1.0
# Answers must become cheaper when they have been too slow for this long at the lower bound.
_TOO_SLOW_S = 2.0
# Under overload a call is refused once it has waited for this long, or for this multiple of the
# 99th percentile without load, whichever is shorter.
_MAX_WAIT_S, _MAX_WAIT_PER_UNLOADED = 0.04, 2.0
# Calls beyond this many in the queue are refused immediately.
_MAX_WAITING = 1024
# A slot is released if the request does not arrive within this time.
_READ_TIMEOUT_S = 0.05


@dataclass(slots=True)
class _Slot:
    """A slot among the calls in progress, taken before the request has been read.

    Attributes:
        cost: The cost that is reserved for the call.
        is_used: Whether the call has started, or the slot has been released.
    """

    cost: float = 1.0
    is_used: bool = False


# The slot of the call that the current task answers.
_SLOT: ContextVar[_Slot | None] = ContextVar("slot", default=None)


class AdaptiveLimit:
    """Admits calls up to a limit that adapts to their latency; see the module's docstring.

    Attributes:
        limit: The cost that may be in progress at the same time under overload.
        refused: The number of refusals.
        refused_at: When a call was last refused, as read from `clock`; minus infinity if never.
    """

    def __init__(
        self,
        lower_bound: float,
        upper_bound: float,
        tolerance: float,
        acceptable_s: float,
        min_in_flight: int = 0,
        initial: float = _INITIAL_LIMIT,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Creates a limit.

        Args:
            lower_bound: The lower bound of the limit.
            upper_bound: The upper bound of the limit.
            tolerance: The 99th percentile of the latency that is tolerated under load, as a
                multiple of the one without load.
            acceptable_s: A mean latency of up to this many seconds never reduces the limit.
            min_in_flight: Up to this many calls, in progress or queued, there is no overload.
            initial: The limit at the start.
            clock: Returns the time in seconds since an arbitrary start.
        """
        self.limit = max(lower_bound, min(initial, upper_bound))
        self.refused = 0
        self._overload = OverloadDetector(min_in_flight, clock)
        self._queue = AdmissionQueue(
            self._effective_limit, lambda: self._overload.is_overloaded, clock
        )
        self._min_in_flight = min_in_flight
        self.refused_at = -math.inf
        self._lower_bound, self._upper_bound = lower_bound, upper_bound
        self._tolerance, self._acceptable_s = tolerance / _SPREAD, acceptable_s
        self._clock = clock
        self._classes: dict[str, ClassLatency] = {}
        self._window_start = clock()
        self._window_calls = 0
        self._window_refused = 0
        # For incomplete answers, the sums of latency / latency without load, and of the latencies.
        self._partial_ratios = self._partial_s = 0.0
        self._most_in_progress = 0.0
        self._calls = 0
        self._loaded_at = -math.inf
        # The time since which every window would have moved the limit below its lower bound.
        self._slow_since = math.inf
        self._is_exhausted = False

    @property
    def in_progress(self) -> float:
        """The total cost of the calls in progress."""
        return self._queue.in_progress

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return self._queue.waiting

    @property
    def is_overloaded(self) -> bool:
        """Whether there is overload.

        The limit is then enforced, the newest calls are admitted first, and the oldest are refused.
        """
        return self._overload.is_overloaded

    @property
    def has_refused(self) -> bool:
        """Whether a call was refused in the last second."""
        return self._clock() - self.refused_at < _RECENT_S

    @property
    def is_exhausted(self) -> bool:
        """Whether answers must become cheaper, because refusing calls is not enough.

        True once calls are refused and answers have been too slow for two seconds with the limit at
        its lower bound; false again once no call has been refused for a second.
        """
        if not self.has_refused:
            self._is_exhausted, self._slow_since = False, math.inf
        elif self._clock() - self._slow_since >= _TOO_SLOW_S:
            self._is_exhausted = True
        return self._is_exhausted

    @property
    def must_wait(self) -> bool:
        """Whether a new call would have to wait, and should wait before its request is read."""
        return self.is_overloaded and not self._queue.can_start(1.0)

    @asynccontextmanager
    async def early_slot(self, name: str) -> AsyncIterator[None]:
        """Waits for a slot before the request is read; `admit` then starts the call immediately.

        Args:
            name: The class of the call, as far as it is known without the request.

        Raises:
            Busy: The call has waited for too long, or too many calls are queued.
            Draining: The server is shutting down.
        """
        slot = _Slot()
        if not self._try_to_enter(slot.cost):
            await self._wait(name, slot.cost)
        _SLOT.set(slot)
        timer = asyncio.get_running_loop().call_later(_READ_TIMEOUT_S, self._abandon, slot)
        try:
            yield
        finally:
            timer.cancel()
            self._abandon(slot)

    def admit(
        self,
        name: str,
        cost: float = 1.0,
        seconds_left: float = math.inf,
        is_complete: bool = True,
    ) -> AbstractAsyncContextManager[None]:
        """Returns a context in which a call runs; the call is in progress until the context exits.

        Args:
            name: The class of the call.
            cost: The cost of the call, in units of the limit. While no other call is in progress,
                a call of any cost is admitted.
            seconds_left: Seconds until the call's deadline.
            is_complete: Whether the answer is computed with all models. The latencies of
                incomplete answers are compared with those of complete ones.

        Raises:
            Busy: The call has waited for too long, too many calls are queued, or calls are being
                refused and this one has less time left than calls of its class take.
            Draining: The server is shutting down, and the call would have to wait.
        """
        return _Admission(self, name, cost, seconds_left, is_complete)

    async def begin(self, name: str, cost: float, seconds_left: float) -> float:
        """Waits until a call can start, and returns the time at which it started; see `admit`."""
        has_refused = self.has_refused
        if has_refused and seconds_left < self._expected_s(name):
            self._refuse()
        slot = _SLOT.get()
        if slot is not None and not slot.is_used:
            slot.is_used = True
            self._queue.change_cost(slot.cost, cost)
        elif not self._try_to_enter(cost):
            await self._wait(name, cost)
            has_refused = self.has_refused
        self._most_in_progress = max(self._most_in_progress, self._queue.in_progress)
        self._calls += 1
        start = self._clock()
        if self._calls > _UNLOADED_CALLS or has_refused:
            self._loaded_at = start
        return start

    def end(
        self, name: str, cost: float, start: float, is_complete: bool, is_answered: bool
    ) -> None:
        """Ends a call that started at a time.

        Errors are not measured: they are often faster than an answer, or as slow as a timeout.
        """
        self._calls -= 1
        self._queue.leave(cost)
        if not is_answered:
            return
        seconds = self._clock() - start
        if is_complete and self._loaded_at < start:
            self._class(name).unloaded.add(seconds)
        self._measure(name, seconds, is_complete)

    def forget(self) -> None:
        """Discards the latencies without load, for example because the release has changed."""
        self._classes.clear()

    def drain(self) -> None:
        """Ends the queued calls, and from now on every call that would have to wait.

        Under overload this ends all calls, so that they reach another server soon.
        """
        self._queue.close()

    def _try_to_enter(self, cost: float) -> bool:
        """Returns whether a call could start immediately, and then counts it as in progress."""
        if not self._queue.try_to_enter(cost):
            return False
        self._overload.record_start()
        return True

    async def _wait(self, name: str, cost: float) -> None:
        """Waits until a call that cannot start immediately is admitted."""
        if not self._queue.is_closed:
            self._overload.record_wait(
                self._queue.calls, self._queue.waiting, self._effective_limit()
            )
            if self._queue.waiting >= _MAX_WAITING:
                self._refuse()
        try:
            await self._queue.enter(cost, self._max_wait_s(name))
        except Refused:
            if self._queue.is_closed:
                raise Draining from None
            self._refuse()

    def _abandon(self, slot: _Slot) -> None:
        if not slot.is_used:
            slot.is_used = True
            self._queue.leave(slot.cost)

    def _effective_limit(self) -> float:
        if self.is_overloaded:
            return self.limit
        return min(max(self.limit, self._min_in_flight), self._upper_bound)

    def _max_wait_s(self, name: str) -> float:
        found = self._classes.get(name)
        known = 0.0 if found is None else _MAX_WAIT_PER_UNLOADED * found.unloaded.seconds
        return min(known or _MAX_WAIT_S, _MAX_WAIT_S)

    def _refuse(self) -> NoReturn:
        self.refused += 1
        self.refused_at = self._clock()
        raise Busy(f"{self.limit:.0f}", self._retry_after_s())

    def _expected_s(self, name: str) -> float:
        """Returns the tolerated mean latency of a class of calls in seconds; 0 if it is unknown."""
        found = self._classes.get(name)
        return 0.0 if found is None else self._tolerance * found.unloaded.seconds

    def _class(self, name: str) -> ClassLatency:
        found = self._classes.get(name)
        if found is None:
            found = self._classes[name] = ClassLatency()
        return found

    def _measure(self, name: str, seconds: float, is_complete: bool) -> None:
        found = self._class(name)
        if is_complete:
            found.total_s += seconds
            found.calls += 1
        elif found.unloaded.seconds:
            self._partial_ratios += seconds / found.unloaded.seconds
            self._partial_s += seconds
        else:
            return
        self._window_calls += 1
        now = self._clock()
        if self._window_calls >= _WINDOW_CALLS and now - self._window_start >= _WINDOW_S:
            self._end_window(now)
            self._window_start, self._window_calls = now, 0
            self._window_refused = self.refused
            self._most_in_progress = self.in_progress

    def _end_window(self, now: float) -> None:
        elapsed_s = now - self._window_start
        ratios, total_s = self._partial_ratios, self._partial_s
        self._partial_ratios = self._partial_s = 0.0
        # Count at most a second of the window: an hour without calls says nothing about latency.
        forget = _FORGET_PER_S * min(elapsed_s, 1.0) if self.refused == self._window_refused else 0
        for found in self._classes.values():
            if not found.calls:
                continue
            found.unloaded.end_window(found.total_s / found.calls, forget)
            ratios += found.total_s / found.unloaded.seconds
            total_s += found.total_s
            found.total_s, found.calls = 0.0, 0
        ratio = ratios / self._window_calls
        gradient = max(_MIN_GRADIENT, min(1.0, self._tolerance / ratio))
        if total_s / self._window_calls <= self._acceptable_s:
            gradient = 1.0
        if gradient == 1.0:
            self._slow_since = math.inf
        if gradient == 1.0 and self._most_in_progress < self.limit / 2:
            return  # A limit that is hardly used says nothing about a higher one.
        # No headroom while calls are too slow: with a small limit, it would allow twice the
        # tolerated latency.
        headroom = math.sqrt(self.limit) if gradient == 1.0 else 0.0
        target = self.limit * gradient + headroom
        limit = self.limit + _SMOOTHING * (target - self.limit)
        self._slow_since = min(self._slow_since, now) if limit <= self._lower_bound else math.inf
        self.limit = max(self._lower_bound, min(self._upper_bound, limit))

    def _retry_after_s(self) -> float:
        """Returns the seconds until about half of the calls in progress have ended."""
        known = max((found.unloaded.seconds for found in self._classes.values()), default=0.0)
        seconds = max(_MIN_RETRY_S, self._tolerance * known / 2)
        # Rounded to few distinct values, so that encoded error details can be reused.
        return round(seconds, 2)


class _Admission(AbstractAsyncContextManager[None]):
    """The context of `AdaptiveLimit.admit`; `asynccontextmanager` would cost several times more."""

    __slots__ = ("_cost", "_is_complete", "_limit", "_name", "_seconds_left", "_start")

    def __init__(
        self, limit: AdaptiveLimit, name: str, cost: float, seconds_left: float, is_complete: bool
    ) -> None:
        self._limit = limit
        self._name = name
        self._cost = cost
        self._seconds_left = seconds_left
        self._is_complete = is_complete

    async def __aenter__(self) -> None:
        self._start = await self._limit.begin(self._name, self._cost, self._seconds_left)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        is_answered = kind is None
        self._limit.end(self._name, self._cost, self._start, self._is_complete, is_answered)
