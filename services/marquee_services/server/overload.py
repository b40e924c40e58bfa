"""Tells overload from a burst and from a caller who is merely eager."""

from __future__ import annotations

import math
from collections.abc import Callable

# A burst is at most so many waiting calls, or so many times the limit, and is over within this.
_LEAST_QUEUE, _QUEUE_PER_LIMIT = 64.0, 2.0
_INTERVAL_S = 0.1
# Overload ends when for so long no call has found many in flight; for longer if it came back at
# once last time, because while it is not known again, calls are slow.
_CALM_S, _LONGEST_CALM_S = 1.0, 16.0


class Overload:
    """Whether there is overload, judged by the calls that have to wait.

    It begins when they have had to for longer than an interval (the criterion of CoDel, RFC 8289),
    or when many wait; but not while few are in flight: callers who wait for each answer cause no
    more load than that, and would come back at once if they were refused.
    """

    def __init__(self, few: int, clock: Callable[[], float]) -> None:
        """Begins without overload.

        Args:
            few: Up to so many calls in flight are no overload.
            clock: Seconds from any start.
        """
        self._few = few
        self._clock = clock
        # Since when all calls have had to wait.
        self._full_since = math.inf
        # Until when overload lasts unless it goes on, and how much longer each sign makes it last.
        self._until = -math.inf
        self._calm_s = _CALM_S

    @property
    def is_on(self) -> bool:
        """Whether there is overload."""
        return self._clock() < self._until

    def found_room(self) -> None:
        """Takes note of a call that begins at once."""
        self._full_since = math.inf

    def found_none(self, calls: int, waiting: int, limit: float) -> None:
        """Takes note of a call that has to wait.

        Args:
            calls: The number of calls in progress.
            waiting: The number of calls that wait, without this one.
            limit: The cost that may be in progress.
        """
        now = self._clock()
        self._full_since = min(self._full_since, now)
        if calls + waiting < self._few:
            return
        if now >= self._until:
            has_come_back = now - self._until < _CALM_S
            is_short = waiting < max(_LEAST_QUEUE, _QUEUE_PER_LIMIT * limit)
            if is_short and now - self._full_since < _INTERVAL_S and not has_come_back:
                return
            self._calm_s = min(2 * self._calm_s, _LONGEST_CALM_S) if has_come_back else _CALM_S
        self._until = now + self._calm_s
