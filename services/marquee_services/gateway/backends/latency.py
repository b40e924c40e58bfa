"""Latencies of replicas, for peak-EWMA load balancing and hedged requests.

*Peak EWMA* is the load balancing of Finagle
(https://twitter.github.io/finagle/guide/Clients.html): the cost of a replica is a moving average of
its latency, which rises immediately and falls slowly, times the number of its calls in flight. A
slow replica gets fewer calls, and a very slow one hardly any, until its average has fallen and the
next call shows whether it has recovered.

*Hedged requests* are described by Dean and Barroso, "The Tail at Scale" (2013): a call that takes
much longer than usual is sent to a second replica, and the first answer is used. A budget prevents
hedges from multiplying the load when all replicas are slow.
"""

from __future__ import annotations

import math

# The time in seconds in which an average decays to 1/e.
_DECAY_S = 5.0
# Averages below this are treated as equal.
_MIN_S = 0.004
# A call is hedged when it takes this multiple of the average latency of the fastest replica.
_HEDGE_AFTER = 3.0
_MIN_HEDGE_S = 0.02
# Each call adds this share of a hedge to the budget, up to the maximum.
_BUDGET_PER_CALL = 0.05
_MAX_BUDGET = 10.0


class PeakLatency:
    """A moving average of latencies that rises immediately and falls slowly."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = -math.inf

    def observe(self, seconds: float, now: float) -> None:
        """Adds the latency of a call that has succeeded or timed out.

        Args:
            seconds: The latency.
            now: The current time in seconds.
        """
        if seconds > self._seconds:
            self._seconds = seconds
        else:
            keep = math.exp((self._at - now) / _DECAY_S)
            self._seconds = keep * self._seconds + (1 - keep) * seconds
        self._at = now

    def value(self, now: float) -> float:
        """Returns the average in seconds, which decays while no calls are observed.

        Args:
            now: The current time in seconds.
        """
        return self._seconds * math.exp((self._at - now) / _DECAY_S)

    def magnitude(self, now: float) -> float:
        """Returns the average rounded to a power of two, so that similar replicas compare equal.

        Args:
            now: The current time in seconds.
        """
        return 2.0 ** round(math.log2(max(_MIN_S, self.value(now))))


class HedgeBudget:
    """Limits how many calls are hedged."""

    def __init__(self) -> None:
        self._tokens = _MAX_BUDGET

    def add_call(self) -> None:
        """Adds a call, which increases the budget."""
        self._tokens = min(_MAX_BUDGET, self._tokens + _BUDGET_PER_CALL)

    def take(self) -> bool:
        """Returns whether a call may be hedged; if so, reduces the budget."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def hedge_after(averages: list[float]) -> float:
    """Returns the seconds after which a call is hedged.

    Args:
        averages: The average latencies of the replicas in seconds.
    """
    return max(_MIN_HEDGE_S, _HEDGE_AFTER * min(averages))
