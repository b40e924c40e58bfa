"""Adaptive throttling: while gateways refuse many calls, the client refuses some of them itself.

A refusal costs a gateway much less than an answer, but not nothing: callers that offer many times
what it can answer leave it no time for answers. The client therefore counts its recent calls and
those that were accepted, and refuses a call, without sending it, with the probability

    max(0, (calls − K · accepted) / (calls + 1)).

With K = 2, it sends about twice as many calls as are accepted, which is enough to notice soon that
the gateways accept more. The method is described in "Handling Overload", chapter 21 of Site
Reliability Engineering (Beyer et al., O'Reilly 2016).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from marquee._errors import MarqueeError, Overloaded

THROTTLED = "THROTTLED"
"""The error reason of calls that the client itself refused."""

_CALLS_PER_ACCEPTED = 2.0
# The first refusals throttle nothing, so that a client that makes few calls is not throttled.
_FREE_REFUSALS = 5.0
# Calls are forgotten with this time constant in seconds. It is short, because gateways accept all
# calls within a second after an overload.
_MEMORY_S = 0.5
# The reasons for which a gateway refuses calls without having answered them.
_REFUSALS = frozenset({"OVERLOADED", "RATE_LIMITED"})
_MESSAGE = "the client did not send the call, because gateways refused most of its recent calls"


class Throttle:
    """Decides which calls of a client are sent. It is approximate if threads share it.

    Attributes:
        refused: The number of calls that it has refused.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Creates a throttle that has seen no calls.

        Args:
            clock: Returns the time in seconds since an arbitrary start.
            draw: Returns a random number between 0 and 1.
        """
        self.refused = 0
        self._clock = clock
        self._draw = draw
        self._calls = self._accepted = 0.0
        self._counted_at = clock()
        self._retry_after: float | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """A context that makes a call, and records how the call ends.

        Raises:
            Overloaded: The call is refused.
        """
        self.check()
        try:
            yield
        except MarqueeError as error:
            self.record(error)
            raise
        self.record(None)

    def check(self) -> None:
        """Checks that a call may be sent.

        Raises:
            Overloaded: It is refused.
        """
        if self._calls - self._accepted < _FREE_REFUSALS:
            return
        self._forget()
        excess = self._calls - _CALLS_PER_ACCEPTED * self._accepted - _FREE_REFUSALS
        if excess > 0 and self._draw() < excess / (self._calls + 1):
            self._calls += 1
            self.refused += 1
            raise Overloaded(_MESSAGE, reason=THROTTLED, retry_after=self._retry_after)

    def record(self, error: MarqueeError | None) -> None:
        """Records how a call that was sent has ended.

        Calls are counted when they end, so calls in progress are not taken for refused ones.

        Args:
            error: Its error; None if it was answered.
        """
        self._forget()
        self._calls += 1
        if isinstance(error, Overloaded) and error.reason in _REFUSALS:
            self._retry_after = error.retry_after
        else:
            self._accepted += 1

    def _forget(self) -> None:
        now = self._clock()
        share = math.exp((self._counted_at - now) / _MEMORY_S)
        self._calls *= share
        self._accepted *= share
        self._counted_at = now
