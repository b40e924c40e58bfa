"""Detects overload, as opposed to a burst or a caller that keeps many calls in flight."""

from __future__ import annotations

import math
from collections.abc import Callable

# A burst queues at most this many calls, or this multiple of the limit, and ends within the
# interval.
_MAX_BURST, _MAX_BURST_PER_LIMIT = 64.0, 2.0
_INTERVAL_S = 0.1
# Overload ends when no call has found many in flight for this long. If overload has returned soon
# after it ended, the time is doubled, up to the longest: calls are slow until overload is detected
# again.
_QUIET_S, _LONGEST_QUIET_S = 1.0, 16.0


class OverloadDetector:
    """Detects overload from the calls that have to wait.

    Overload begins when all calls of an interval had to wait (the criterion of CoDel, RFC 8289), or
    when many calls are queued. With few calls in flight there is no overload: callers that wait for
    each answer cause no more load than that, and would retry immediately if refused.
    """

    def __init__(self, min_in_flight: int, clock: Callable[[], float]) -> None:
        """Creates a detector that reports no overload yet.

        Args:
            min_in_flight: Up to this many calls in flight, there is no overload.
            clock: Returns the time in seconds since an arbitrary start.
        """
        self._min_in_flight = min_in_flight
        self._clock = clock
        # The time since which every call has had to wait.
        self._full_since = math.inf
        # When overload ends unless it is detected again, and by how much each detection extends it.
        self._until = -math.inf
        self._quiet_s = _QUIET_S

    @property
    def is_overloaded(self) -> bool:
        """Whether there is overload."""
        return self._clock() < self._until

    def record_start(self) -> None:
        """Records a call that starts immediately."""
        self._full_since = math.inf

    def record_wait(self, calls: int, waiting: int, limit: float) -> None:
        """Records a call that has to wait.

        Args:
            calls: The number of calls in progress.
            waiting: The number of queued calls, without this one.
            limit: The cost that may be in progress.
        """
        now = self._clock()
        self._full_since = min(self._full_since, now)
        if calls + waiting < self._min_in_flight:
            return
        if now >= self._until:
            has_returned = now - self._until < _QUIET_S
            is_short = waiting < max(_MAX_BURST, _MAX_BURST_PER_LIMIT * limit)
            if is_short and now - self._full_since < _INTERVAL_S and not has_returned:
                return
            self._quiet_s = min(2 * self._quiet_s, _LONGEST_QUIET_S) if has_returned else _QUIET_S
        self._until = now + self._quiet_s
