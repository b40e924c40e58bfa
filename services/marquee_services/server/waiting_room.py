"""Where calls wait for their turn: in order, or under overload the newest first.

Under overload a queue in the order of arrival makes every call wait as long as the queue lasts. The
newest calls have the most time left, so they go first, and the oldest are refused: adaptive LIFO
with controlled delay, as described by B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

# Refusals for each call that ends, and a second: a refusal costs as much as a stored answer, so
# more would take the time of answers where many times as much is offered as can be answered.
_REFUSALS_PER_CALL, _REFUSALS_PER_S = 2.0, 50.0
# The refusals that may be made up for at once after there were none.
_MOST_SAVED = 20.0
# Calls that are to be refused are looked for no more often than this.
_LEAST_DELAY_S = 0.001


class Refused(Exception):
    """A call has waited for too long."""


@dataclass(slots=True)
class _Waiter:
    cost: float
    # When it has waited for long enough to be refused, by the clock.
    until: float


class WaitingRoom:
    """Admits calls of different cost up to a limit, which may change; others wait.

    Attributes:
        in_progress: The cost in progress.
        calls: The number of calls in progress.
    """

    def __init__(
        self,
        limit: Callable[[], float],
        is_overloaded: Callable[[], bool],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Creates an empty room.

        Args:
            limit: Returns the cost that may be in progress at once.
            is_overloaded: Returns whether the newest call goes first, and calls that have waited
                for as long as they should are refused.
            clock: Seconds from any start.
        """
        self.in_progress = 0.0
        self.calls = 0
        self._limit = limit
        self._is_overloaded = is_overloaded
        self._clock = clock
        self._waiting: OrderedDict[asyncio.Future[None], _Waiter] = OrderedDict()
        # How many refusals may be made now, and when that was counted.
        self._allowed, self._allowed_at = _MOST_SAVED, clock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """The number of calls that wait."""
        return len(self._waiting)

    def has_room(self, cost: float) -> bool:
        """Whether a call can begin at once. If none is in progress, it can whatever it costs."""
        return not self._waiting and self._fits(cost)

    async def enter(self, cost: float, patience_s: float) -> None:
        """Waits until a call can begin; `leave` must follow when it ends.

        Args:
            cost: The cost of the call.
            patience_s: Seconds after which the call may be refused under overload.

        Raises:
            Refused: It was.
        """
        if self.has_room(cost):
            self._begin(cost)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = _Waiter(cost, self._clock() + patience_s)
        self.settle()
        try:
            await turn
        except asyncio.CancelledError:
            was_over = self._waiting.pop(turn, None) is None and not turn.cancelled()
            if was_over and turn.exception() is None:
                self.leave(cost)  # Its turn came as its caller gave up.
            raise

    def leave(self, cost: float) -> None:
        """Ends a call, and begins those that there is room for then.

        Args:
            cost: The cost of the call.
        """
        self.in_progress -= cost
        self.calls -= 1
        self._allowed += _REFUSALS_PER_CALL
        self.settle()

    def change(self, before: float, after: float) -> None:
        """Changes the cost of a call in progress."""
        self.in_progress += after - before

    def settle(self) -> None:
        """Begins the calls that there is room for, and refuses those that are to be refused."""
        is_overloaded, now = self._is_overloaded(), self._clock()
        while self._waiting:
            turn = next(reversed(self._waiting) if is_overloaded else iter(self._waiting))
            waiter = self._waiting[turn]
            if turn.done():  # Its caller has given up.
                del self._waiting[turn]
            elif self._fits(waiter.cost) and not (is_overloaded and now >= waiter.until):
                del self._waiting[turn]
                self._begin(waiter.cost)
                turn.set_result(None)
            else:
                break
        if is_overloaded and self._waiting:
            self._refuse_oldest(now)

    def _refuse_oldest(self, now: float) -> None:
        earned = (now - self._allowed_at) * _REFUSALS_PER_S
        self._allowed, self._allowed_at = min(_MOST_SAVED, self._allowed + earned), now
        while self._waiting:
            turn, waiter = next(iter(self._waiting.items()))
            # Where nothing is in progress, refusals take time from nothing.
            must_save = self._allowed < 1 and self.calls
            if not turn.done() and (must_save or now < waiter.until):
                self._look_again(max(waiter.until - now, (1 - self._allowed) / _REFUSALS_PER_S))
                return
            del self._waiting[turn]
            if not turn.done():
                self._allowed = max(0.0, self._allowed - 1)
                turn.set_exception(Refused())

    def _look_again(self, seconds: float) -> None:
        if self._timer is None:
            delay_s = max(seconds, _LEAST_DELAY_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.settle()

    def _begin(self, cost: float) -> None:
        self.in_progress += cost
        self.calls += 1

    def _fits(self, cost: float) -> bool:
        return not self.calls or self.in_progress + cost <= self._limit()
