"""An adaptive limit of the work in progress, which sheds load before latency grows.

The method is the gradient algorithm of Netflix's concurrency-limits
(https://github.com/Netflix/concurrency-limits): the limit shrinks by the ratio of the latency
without load to the latency now, and a headroom of its square root lets it grow again,

    limit ← limit · min(1, tolerance · unloaded / now) + √limit.

A burst is no overload: calls beyond the limit wait for their turn, as long as the queue is short
and has not lasted for longer than an interval (the criterion of CoDel, RFC 8289). After a refusal,
calls are refused at once until there has been none for a second.

Latencies are compared within a class of calls, because calls of different classes cost different
amounts of work: what enters the formula is the mean of latency / unloaded latency.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

from marquee_services.errors import Busy
from marquee_services.server.cost_queue import CostQueue

# A window ends with this many calls, if it has lasted as long as this.
_WINDOW_CALLS = 10
_WINDOW_S = 0.05
_LEAST_GRADIENT = 0.5
# The share of a window's result in the new limit.
_SMOOTHING = 0.3
# The unloaded latency of a class is the least mean of a window. In windows without a refusal it is
# forgotten by this share a second: a slower release becomes the new normal in a minute or two.
_FORGET_PER_S = 0.01
# A retry before the calls in progress have ended would be refused again.
_LEAST_RETRY_S = 0.05
_RECENT_S = 1.0
# Calls wait in a queue of at most so many times the limit, and only if the queue is younger.
_QUEUE_PER_LIMIT = 2.0
_INTERVAL_S = 0.1


@dataclass
class _Class:
    """The latencies of a class of calls.

    Attributes:
        unloaded_s: The latency without load, in seconds; 0 until it is known.
        total_s: The sum of the latencies in this window, in seconds.
        calls: The number of calls in this window.
    """

    unloaded_s: float = 0.0
    total_s: float = 0.0
    calls: int = 0


class AdaptiveLimit:
    """Admits work up to a limit that follows the latency; see the module's description.

    Attributes:
        limit: The cost that may be in progress at once.
        refused: The number of refusals.
        refused_at: When the last one was, by the clock; minus infinity if there was none.
    """

    def __init__(
        self,
        least: float,
        most: float,
        tolerance: float,
        unhurried_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Creates a limit.

        Args:
            least: The lower bound of the limit, which starts at four times as much. That is low
                enough to see the latency without load.
            most: The upper bound.
            tolerance: The latency that is aimed at under load, as a multiple of the unloaded one.
            unhurried_s: Latencies up to this many seconds never reduce the limit.
            clock: Seconds from any start.
        """
        self.limit = min(4.0 * least, most)
        self.refused = 0
        self._queue = CostQueue(lambda: self.limit)
        self._queue_since = math.inf
        self.refused_at = -math.inf
        self._least, self._most = least, most
        self._tolerance, self._unhurried_s = tolerance, unhurried_s
        self._clock = clock
        self._classes: dict[str, _Class] = {}
        self._window_start = clock()
        self._window_calls = 0
        self._window_refused = 0
        self._most_in_progress = 0.0

    @property
    def in_progress(self) -> float:
        """The cost in progress."""
        return self._queue.in_progress

    @property
    def has_overload(self) -> bool:
        """Whether calls were refused in the last second."""
        return self._clock() - self.refused_at < _RECENT_S

    def refuse_if_full(self) -> None:
        """Refuses a call if the limit is reached and calls are being refused.

        Raises:
            Busy: They are.
        """
        if self.has_overload and not self._queue.has_room(1.0):
            self._refuse()

    def admit(
        self, name: str, cost: float = 1.0, seconds_left: float = math.inf
    ) -> AbstractAsyncContextManager[None]:
        """Surrounds a call, which counts as in progress until the block ends.

        Args:
            name: The class of the call.
            cost: What the call costs, in units of the limit. A call is admitted whatever it costs
                if nothing else is in progress.
            seconds_left: Seconds until the call's deadline.

        Raises:
            Busy: The limit is reached, or calls are being refused and this one has less time left
                than such a call takes. It is raised when the block is entered.
        """
        return _Admission(self, name, cost, seconds_left)

    async def enter(self, name: str, cost: float, seconds_left: float) -> float:
        """Waits until a call may begin, which it does now; see `admit`."""
        now = self._clock()
        if self._queue.has_room(cost):
            self._queue_since = math.inf
        else:
            self._queue_since = min(self._queue_since, now)
            is_burst = (
                self._queue.waiting < _QUEUE_PER_LIMIT * self.limit
                and now - self._queue_since < _INTERVAL_S
            )
            if self.has_overload or not is_burst:
                self._refuse()
        if self.has_overload and seconds_left < self._expected_s(name):
            self._refuse()
        await self._queue.enter(cost)
        self._most_in_progress = max(self._most_in_progress, self.in_progress)
        return self._clock()

    def leave(self, name: str, cost: float, start: float, is_answered: bool) -> None:
        """Ends a call that was entered at `start`."""
        self._queue.leave(cost)
        # Only answers are measured: errors are often faster than the work, or as slow as a timeout.
        if is_answered:
            self._measure(name, self._clock() - start)

    def _refuse(self) -> NoReturn:
        self.refused += 1
        self.refused_at = self._clock()
        raise Busy(f"{self.limit:.0f}", self._retry_after_s())

    def _expected_s(self, name: str) -> float:
        """The latency of a class of calls under load, in seconds; 0 if it is not known yet."""
        found = self._classes.get(name)
        return 0.0 if found is None else self._tolerance * found.unloaded_s

    def _measure(self, name: str, seconds: float) -> None:
        found = self._classes.setdefault(name, _Class())
        found.total_s += seconds
        found.calls += 1
        self._window_calls += 1
        now = self._clock()
        if self._window_calls >= _WINDOW_CALLS and now - self._window_start >= _WINDOW_S:
            self._end_window(now - self._window_start)
            self._window_start, self._window_calls = now, 0
            self._window_refused = self.refused
            self._most_in_progress = self.in_progress

    def _end_window(self, elapsed_s: float) -> None:
        ratios, total_s = 0.0, 0.0
        # Forgotten over at most a second: a quiet hour says nothing about latency.
        forget = _FORGET_PER_S * min(elapsed_s, 1.0) if self.refused == self._window_refused else 0
        for found in self._classes.values():
            found.unloaded_s *= 1 + forget
            if not found.calls:
                continue
            mean = found.total_s / found.calls
            found.unloaded_s = min(found.unloaded_s or mean, mean)
            ratios += found.calls * mean / found.unloaded_s
            total_s += found.total_s
            found.total_s, found.calls = 0.0, 0
        ratio = ratios / self._window_calls
        gradient = max(_LEAST_GRADIENT, min(1.0, self._tolerance / ratio))
        if total_s / self._window_calls <= self._unhurried_s:
            gradient = 1.0
        if gradient == 1.0 and self._most_in_progress < self.limit / 2:
            return  # Calls that do not use the limit do not show that it could be higher.
        wanted = self.limit * gradient + math.sqrt(self.limit)
        limit = self.limit + _SMOOTHING * (wanted - self.limit)
        self.limit = max(self._least, min(self._most, limit))

    def _retry_after_s(self) -> float:
        """Until about half of the calls in progress have ended."""
        known = [found.unloaded_s for found in self._classes.values() if found.unloaded_s]
        seconds = max(_LEAST_RETRY_S, self._tolerance * max(known, default=0.0) / 2)
        # Few distinct values, so that the details of the error are encoded once.
        return round(seconds, 2)


class _Admission(AbstractAsyncContextManager[None]):
    """Surrounds a call; a context manager made of a generator would cost several times as much."""

    __slots__ = ("_cost", "_limit", "_name", "_seconds_left", "_start")

    def __init__(self, limit: AdaptiveLimit, name: str, cost: float, seconds_left: float) -> None:
        self._limit = limit
        self._name = name
        self._cost = cost
        self._seconds_left = seconds_left

    async def __aenter__(self) -> None:
        self._start = await self._limit.enter(self._name, self._cost, self._seconds_left)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._limit.leave(self._name, self._cost, self._start, kind is None)
