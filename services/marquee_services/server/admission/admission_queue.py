"""Admits calls up to a limit on their cost and queues the rest.

The queue is in order of arrival, except under overload: then the newest calls are admitted first,
because they have the most time left, and the oldest are refused. In order of arrival, every call
would wait for as long as the queue is. This is adaptive LIFO with controlled delay, as described
by B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Refusals that are allowed for each call that ends, and per second. A refusal costs as much as a
# stored answer, so with many times the peak load more refusals would leave no time for answers.
_REFUSALS_PER_CALL, _REFUSALS_PER_S = 2.0, 50.0
# The most unused refusals that are saved for later.
_MAX_SAVED_REFUSALS = 20.0
# The shortest time between two searches for calls to refuse.
_MIN_DELAY_S = 0.001


class Refused(Exception):
    """A call has waited longer than is allowed under overload, or the queue is closed."""


@dataclass(slots=True)
class _Waiter:
    cost: float
    # When the call may be refused, by the clock.
    until: float


class AdmissionQueue:
    """Admits calls of different costs up to a limit, which may change, and queues the rest.

    Attributes:
        in_progress: The total cost of the calls in progress.
        calls: The number of calls in progress.
        is_closed: Whether calls that cannot start immediately are refused; see `close`.
    """

    def __init__(
        self,
        limit: Callable[[], float],
        is_overloaded: Callable[[], bool],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Creates an empty queue.

        Args:
            limit: Returns the cost that may be in progress at the same time.
            is_overloaded: Returns whether there is overload: the newest calls are admitted first,
                and calls that have waited for too long are refused.
            clock: Returns the time in seconds since an arbitrary start.
        """
        self.in_progress = 0.0
        self.calls = 0
        self.is_closed = False
        self._limit = limit
        self._is_overloaded = is_overloaded
        self._clock = clock
        self._waiting: OrderedDict[asyncio.Future[None], _Waiter] = OrderedDict()
        # How many refusals are allowed now, and when that was computed.
        self._allowed, self._allowed_at = _MAX_SAVED_REFUSALS, clock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return len(self._waiting)

    def can_start(self, cost: float) -> bool:
        """Returns whether a call can start immediately; if none is in progress, any call can."""
        if self.is_closed and self._is_overloaded():
            return False
        return not self._waiting and self._fits(cost)

    def try_to_enter(self, cost: float) -> bool:
        """Starts a call if it can start immediately, and returns whether it did."""
        if not self.can_start(cost):
            return False
        self._start(cost)
        return True

    async def enter(self, cost: float, max_wait_s: float) -> None:
        """Waits until a call can start. Call `leave` when the call ends.

        Args:
            cost: The cost of the call.
            max_wait_s: Seconds after which the call may be refused under overload.

        Raises:
            Refused: The call has waited for longer than `max_wait_s` under overload, or the queue
                is closed.
        """
        if self.try_to_enter(cost):
            return
        if self.is_closed:
            raise Refused
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = _Waiter(cost, self._clock() + max_wait_s)
        self.dispatch()
        try:
            await turn
        except asyncio.CancelledError:
            was_done = self._waiting.pop(turn, None) is None and not turn.cancelled()
            if was_done and turn.exception() is None:
                self.leave(cost)  # It was admitted at the moment it was cancelled.
            raise
        finally:
            del turn  # Otherwise it, its error and this frame would keep one another in memory.

    def leave(self, cost: float) -> None:
        """Ends a call, and starts the queued calls that fit within the limit then.

        Args:
            cost: The cost of the call.
        """
        self.in_progress -= cost
        self.calls -= 1
        self._allowed += _REFUSALS_PER_CALL
        self.dispatch()

    def close(self) -> None:
        """Refuses all queued calls, and from now on every call that cannot start immediately.

        Under overload no call can.
        """
        self.is_closed = True
        waiting = list(self._waiting)
        self._waiting.clear()
        for turn in waiting:
            if not turn.done():
                turn.set_exception(Refused())

    def change_cost(self, before: float, after: float) -> None:
        """Changes the cost of a call in progress."""
        self.in_progress += after - before

    def dispatch(self) -> None:
        """Starts the queued calls that fit within the limit, and refuses those that are overdue."""
        is_overloaded, now = self._is_overloaded(), self._clock()
        while self._waiting:
            turn = next(reversed(self._waiting) if is_overloaded else iter(self._waiting))
            waiter = self._waiting[turn]
            if turn.done():  # The call was cancelled.
                del self._waiting[turn]
            elif self._fits(waiter.cost) and not (is_overloaded and now >= waiter.until):
                del self._waiting[turn]
                self._start(waiter.cost)
                turn.set_result(None)
            else:
                break
        if is_overloaded and self._waiting:
            self._refuse_oldest(now)

    def _refuse_oldest(self, now: float) -> None:
        earned = (now - self._allowed_at) * _REFUSALS_PER_S
        self._allowed, self._allowed_at = min(_MAX_SAVED_REFUSALS, self._allowed + earned), now
        while self._waiting:
            turn, waiter = next(iter(self._waiting.items()))
            # While no call is in progress, refusals take no time from answers.
            is_rationed = self._allowed < 1 and self.calls
            if not turn.done() and (is_rationed or now < waiter.until):
                self._dispatch_after(max(waiter.until - now, (1 - self._allowed) / _REFUSALS_PER_S))
                return
            del self._waiting[turn]
            if not turn.done():
                self._allowed = max(0.0, self._allowed - 1)
                turn.set_exception(Refused())

    def _dispatch_after(self, seconds: float) -> None:
        if self._timer is None:
            delay_s = max(seconds, _MIN_DELAY_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.dispatch()

    def _start(self, cost: float) -> None:
        self.in_progress += cost
        self.calls += 1

    def _fits(self, cost: float) -> bool:
        return not self.calls or self.in_progress + cost <= self._limit()
