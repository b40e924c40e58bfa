"""Limits how many calls a second each identity may make: token buckets, one for each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimits:
    """A token bucket for each of the identities that called last.

    A bucket holds at most `burst` tokens and gains `rate` a second; each call takes one.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        max_identities: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates buckets that are full.

        Args:
            rate: Calls a second.
            burst: Calls that may come at once.
            max_identities: Most buckets; those used longest ago are forgotten, so their identities
                start with a full bucket again.
            clock: Returns the time in seconds.
        """
        self._rate = rate
        self._burst = burst
        self._max_identities = max_identities
        self._clock = clock
        # Tokens and the time at which they were counted.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, identity: str) -> float:
        """Takes a token of an identity.

        Returns:
            0 if there was one; otherwise the seconds until there will be one.
        """
        now = self._clock()
        tokens, counted = self._buckets.get(identity, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[identity] = (tokens if wait else tokens - 1, now)
        self._buckets.move_to_end(identity)
        if len(self._buckets) > self._max_identities:
            self._buckets.popitem(last=False)
        return wait
