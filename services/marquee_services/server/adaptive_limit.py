"""An adaptive limit of the work in progress, which sheds load before latency grows.

The method is the gradient algorithm of Netflix's concurrency-limits
(https://github.com/Netflix/concurrency-limits), with the 99th percentile of the latency without
load in place of its minimum: the mean latency of the last calls may be half of what is tolerated of
their 99th percentile, which is a multiple of that percentile without load. Where the mean is
larger, the limit shrinks by that ratio, and otherwise it grows by its square root:

    limit ← limit · (tolerance / 2) · p99 without load / mean    or    limit + √limit.

The limit is in force under overload only (`overload`): a burst, or a caller who keeps a few dozen
calls in flight, waits at most. Callers who are refused come back, and a refusal costs as much as a
stored answer. How calls wait, and which are refused, is in `waiting_room`.

Latencies are compared within a class of calls, because calls of different classes cost different
amounts of work: what enters the formula is the mean of latency / p99 without load.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NoReturn

from marquee_services.errors import Busy
from marquee_services.server.overload import Overload
from marquee_services.server.unloaded import UnloadedLatency
from marquee_services.server.waiting_room import Refused, WaitingRoom

# A window ends with this many calls, if it has lasted as long as this.
_WINDOW_CALLS = 10
_WINDOW_S = 0.05
_LEAST_GRADIENT = 0.5
# The share of a window's result in the new limit.
_SMOOTHING = 0.3
# In windows without a refusal the least latency is forgotten by this share a second.
_FORGET_PER_S = 0.01
# Up to so many calls in progress count as no load.
_FEW_CALLS = 2
# The limit at the start: low enough to see the latency without load.
_FIRST_LIMIT = 64.0
# The 99th percentile of latencies under load is about so many times their mean.
_SPREAD = 2.0
# A retry before the calls in progress have ended would be refused again.
_LEAST_RETRY_S = 0.05
_RECENT_S = 1.0
# Answers must cost less when they have been too slow for so long with the least limit.
_TOO_SLOW_S = 2.0
# Under overload a call is refused once it has waited for this long, or for so many times the 99th
# percentile without load, if that is shorter.
_PATIENCE_S, _PATIENCE_PER_UNLOADED = 0.04, 2.0
# Further calls are refused without waiting.
_MOST_WAITING = 1024
# A place is given up again if the request does not arrive within this time.
_READ_S = 0.05


@dataclass
class _Class:
    """The latencies of a class of calls.

    Attributes:
        unloaded: The latency without load.
        total_s: The sum of the latencies in this window, in seconds.
        calls: The number of calls in this window.
    """

    unloaded: UnloadedLatency = field(default_factory=UnloadedLatency)
    total_s: float = 0.0
    calls: int = 0


@dataclass(slots=True)
class _Place:
    """A place among the calls in progress, taken before the request has been read.

    Attributes:
        cost: Its cost.
        is_used: Whether the call has begun, or the place has been given up.
    """

    cost: float = 1.0
    is_used: bool = False


# The place of the call that the running task answers.
_PLACE: ContextVar[_Place | None] = ContextVar("place", default=None)


class AdaptiveLimit:
    """Admits work up to a limit that follows the latency; see the module's description.

    Attributes:
        limit: The cost that may be in progress at once under overload.
        refused: The number of refusals.
        refused_at: When the last one was, by the clock; minus infinity if there was none.
    """

    def __init__(
        self,
        least: float,
        most: float,
        tolerance: float,
        unhurried_s: float,
        in_flight: int = 0,
        first: float = _FIRST_LIMIT,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Creates a limit.

        Args:
            least: The lower bound of the limit.
            most: The upper bound.
            tolerance: The 99th percentile of the latency that is aimed at under load, as a
                multiple of the one without load.
            unhurried_s: Latencies up to this many seconds never reduce the limit.
            in_flight: With up to so many calls, computing or waiting, there is no overload.
            first: The limit at the start.
            clock: Seconds from any start.
        """
        self.limit = max(least, min(first, most))
        self.refused = 0
        self._overload = Overload(in_flight, clock)
        self._room = WaitingRoom(self._limit_in_force, lambda: self._overload.is_on, clock)
        self._in_flight = in_flight
        self.refused_at = -math.inf
        self._least, self._most = least, most
        self._tolerance, self._unhurried_s = tolerance / _SPREAD, unhurried_s
        self._clock = clock
        self._classes: dict[str, _Class] = {}
        self._window_start = clock()
        self._window_calls = 0
        self._window_refused = 0
        # The sums of latency / unloaded latency, and of the latencies, of answers not whole.
        self._partial_ratios = self._partial_s = 0.0
        self._most_in_progress = 0.0
        self._calls = 0
        self._crowded_at = -math.inf
        # Since when all windows have wanted a lower limit than the least one.
        self._slow_since = math.inf
        self._is_exhausted = False

    @property
    def in_progress(self) -> float:
        """The cost in progress."""
        return self._room.in_progress

    @property
    def waiting(self) -> int:
        """The number of calls that wait for their turn."""
        return self._room.waiting

    @property
    def is_overloaded(self) -> bool:
        """Whether the limit is in force, the newest calls go first and the oldest are refused."""
        return self._overload.is_on

    @property
    def has_refused(self) -> bool:
        """Whether calls were refused in the last second."""
        return self._clock() - self.refused_at < _RECENT_S

    @property
    def is_exhausted(self) -> bool:
        """Whether answers must cost less, until no call has been refused for a while.

        They must if calls are refused and answers have been too slow for a while, although the
        limit is at its least.
        """
        if not self.has_refused:
            self._is_exhausted, self._slow_since = False, math.inf
        elif self._clock() - self._slow_since >= _TOO_SLOW_S:
            self._is_exhausted = True
        return self._is_exhausted

    @property
    def must_wait(self) -> bool:
        """Whether a call would have to wait, and should do so before its request is read."""
        return self.is_overloaded and not self._room.has_room(1.0)

    @asynccontextmanager
    async def early_place(self, name: str) -> AsyncIterator[None]:
        """Waits for a place before the request is read; `admit` then begins with it at once.

        Args:
            name: The class of the call, as far as it is known.

        Raises:
            Busy: The call has waited for too long, or too many calls wait.
        """
        place = _Place()
        await self._enter(name, place.cost)
        _PLACE.set(place)
        timer = asyncio.get_running_loop().call_later(_READ_S, self._give_up, place)
        try:
            yield
        finally:
            timer.cancel()
            self._give_up(place)

    @asynccontextmanager
    async def admit(
        self,
        name: str,
        cost: float = 1.0,
        seconds_left: float = math.inf,
        is_whole: bool = True,
    ) -> AsyncIterator[None]:
        """Surrounds a call, which counts as in progress until the block ends.

        Args:
            name: The class of the call.
            cost: What the call costs, in units of the limit. A call is admitted whatever it costs
                if nothing else is in progress.
            seconds_left: Seconds until the call's deadline.
            is_whole: Whether this is a whole answer; its latency is compared with that of whole
                answers in any case.

        Raises:
            Busy: The call has waited for too long, or too many calls wait, or calls are being
                refused and this one has less time left than such a call takes.
        """
        if self.has_refused and seconds_left < self._expected_s(name):
            self._refuse()
        place = _PLACE.get()
        if place is None or place.is_used:
            await self._enter(name, cost)
        else:
            place.is_used = True
            self._room.change(place.cost, cost)
        self._most_in_progress = max(self._most_in_progress, self.in_progress)
        self._calls += 1
        start = self._clock()
        if self._calls > _FEW_CALLS or self.has_refused:
            self._crowded_at = start
        try:
            yield
        finally:
            self._calls -= 1
            self._room.leave(cost)
        # Only answers are measured: errors are often faster than the work, or as slow as a timeout.
        seconds = self._clock() - start
        if is_whole and self._crowded_at < start:
            self._class(name).unloaded.add(seconds)
        self._measure(name, seconds, is_whole)

    def forget(self) -> None:
        """Forgets the latencies without load, for example because the release is another one."""
        self._classes.clear()

    async def _enter(self, name: str, cost: float) -> None:
        if self._room.has_room(cost):
            self._overload.found_room()
        else:
            self._overload.found_none(self._room.calls, self._room.waiting, self._limit_in_force())
            if self._room.waiting >= _MOST_WAITING:
                self._refuse()
        try:
            await self._room.enter(cost, self._patience_s(name))
        except Refused:
            self._refuse()

    def _give_up(self, place: _Place) -> None:
        if not place.is_used:
            place.is_used = True
            self._room.leave(place.cost)

    def _limit_in_force(self) -> float:
        if self.is_overloaded:
            return self.limit
        return min(max(self.limit, self._in_flight), self._most)

    def _patience_s(self, name: str) -> float:
        found = self._classes.get(name)
        known = 0.0 if found is None else _PATIENCE_PER_UNLOADED * found.unloaded.seconds
        return min(known or _PATIENCE_S, _PATIENCE_S)

    def _refuse(self) -> NoReturn:
        self.refused += 1
        self.refused_at = self._clock()
        raise Busy(f"{self.limit:.0f}", self._retry_after_s())

    def _expected_s(self, name: str) -> float:
        """The latency of a class of calls under load, in seconds; 0 if it is not known yet."""
        found = self._classes.get(name)
        return 0.0 if found is None else self._tolerance * found.unloaded.seconds

    def _class(self, name: str) -> _Class:
        found = self._classes.get(name)
        if found is None:
            found = self._classes[name] = _Class()
        return found

    def _measure(self, name: str, seconds: float, is_whole: bool) -> None:
        found = self._class(name)
        if is_whole:
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
        # Forgotten over at most a second: a quiet hour says nothing about latency.
        forget = _FORGET_PER_S * min(elapsed_s, 1.0) if self.refused == self._window_refused else 0
        for found in self._classes.values():
            if not found.calls:
                continue
            found.unloaded.end_window(found.total_s / found.calls, forget)
            ratios += found.total_s / found.unloaded.seconds
            total_s += found.total_s
            found.total_s, found.calls = 0.0, 0
        ratio = ratios / self._window_calls
        gradient = max(_LEAST_GRADIENT, min(1.0, self._tolerance / ratio))
        if total_s / self._window_calls <= self._unhurried_s:
            gradient = 1.0
        if gradient == 1.0:
            self._slow_since = math.inf
        if gradient == 1.0 and self._most_in_progress < self.limit / 2:
            return  # Calls that do not use the limit do not show that it could be higher.
        # Without headroom where calls are too slow: with small limits it would tolerate twice the
        # latency that is aimed at.
        headroom = math.sqrt(self.limit) if gradient == 1.0 else 0.0
        wanted = self.limit * gradient + headroom
        limit = self.limit + _SMOOTHING * (wanted - self.limit)
        self._slow_since = min(self._slow_since, now) if limit <= self._least else math.inf
        self.limit = max(self._least, min(self._most, limit))

    def _retry_after_s(self) -> float:
        """Until about half of the calls in progress have ended."""
        known = max((found.unloaded.seconds for found in self._classes.values()), default=0.0)
        seconds = max(_LEAST_RETRY_S, self._tolerance * known / 2)
        # Few distinct values, so that the details of the error are encoded once.
        return round(seconds, 2)
