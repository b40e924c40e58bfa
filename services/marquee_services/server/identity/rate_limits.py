"""Limits the rate of calls per identity with token buckets."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class RateLimits:
    """A token bucket for each of the identities that called most recently.

    A bucket holds at most `burst` tokens and gains `rate` tokens per second; each call takes one.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        max_identities: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates the limits; the bucket of a new identity is full.

        Args:
            rate: Calls per second.
            burst: The most calls in a burst.
            max_identities: The most buckets. The least recently used ones are dropped, so their
                identities start with a full bucket again.
            clock: Returns the time in seconds.
        """
        self._rate = rate
        self._burst = burst
        self._max_identities = max_identities
        self._clock = clock
        # The number of tokens, and the time at which it was computed.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, identity: str) -> float:
        """Takes a token from the bucket of an identity.

        Returns:
            0 if there was a token; otherwise the seconds until there will be one.
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
