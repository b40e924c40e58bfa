"""Which replica to call, and when to call a second one: peak EWMA and hedged requests.

*Peak EWMA* is the balancing of Finagle (https://twitter.github.io/finagle/guide/Clients.html): the
cost of a replica is a moving average of its latency, which rises at once and falls slowly, times
the number of its calls in flight. A slow replica gets fewer calls, and a slower one hardly any,
until its average has fallen and the next call shows whether it has recovered.

*Hedged requests* are those of Dean and Barroso, "The Tail at Scale" (2013): a call that takes much
longer than usual is sent to a second replica, and the first answer counts. A budget keeps hedges
from multiplying the load when all replicas are slow.
"""

from __future__ import annotations

import math

# An average falls to a third in so many seconds.
_FALL_S = 5.0
# Averages below this count as alike.
_LEAST_S = 0.004
# A call is hedged when it takes so many times as long as the average of the fastest replica.
_HEDGE_AFTER = 3.0
_LEAST_HEDGE_S = 0.02
# Each call adds this share of a hedge to the budget, which holds so many hedges at most.
_BUDGET_PER_CALL = 0.05
_LARGEST_BUDGET = 10.0


class PeakLatency:
    """A moving average of latencies that follows a rise at once."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = -math.inf

    def observe(self, seconds: float, now: float) -> None:
        """Takes the latency of a call that ended, whether it succeeded or timed out.

        Args:
            seconds: The latency.
            now: The present time in seconds.
        """
        if seconds > self._seconds:
            self._seconds = seconds
        else:
            keep = math.exp((self._at - now) / _FALL_S)
            self._seconds = keep * self._seconds + (1 - keep) * seconds
        self._at = now

    def value(self, now: float) -> float:
        """Returns the average in seconds; it falls while no call is observed.

        Args:
            now: The present time in seconds.
        """
        return self._seconds * math.exp((self._at - now) / _FALL_S)

    def magnitude(self, now: float) -> float:
        """Returns the average, rounded to a power of two, so that like replicas count as alike.

        Args:
            now: The present time in seconds.
        """
        return 2.0 ** round(math.log2(max(_LEAST_S, self.value(now))))


class HedgeBudget:
    """How many calls may be hedged."""

    def __init__(self) -> None:
        self._tokens = _LARGEST_BUDGET

    def add_call(self) -> None:
        """Counts a call."""
        self._tokens = min(_LARGEST_BUDGET, self._tokens + _BUDGET_PER_CALL)

    def take(self) -> bool:
        """Returns whether a call may be hedged; if so, it is counted."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def hedge_after(averages: list[float]) -> float:
    """Seconds after which a call is hedged.

    Args:
        averages: The average latencies of the replicas in seconds.
    """
    return max(_LEAST_HEDGE_S, _HEDGE_AFTER * min(averages))
