"""The deadline of backends, which leaves the gateway enough time to answer.

`marquee_services.server.interceptor` enforces the caller's own deadline and ends calls that exceed
it. The deadline here is slightly earlier: backends that have not answered by then are left out, so
that the caller gets a degraded answer instead of an error.
"""

from __future__ import annotations

import asyncio


class Deadline:
    """The time by which the backends must have answered."""

    def __init__(self, seconds: float, reserve: float) -> None:
        """Sets the deadline.

        Args:
            seconds: Seconds from now until the caller's deadline.
            reserve: The part of these seconds that is reserved for building the answer.
        """
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds - reserve
        self._extension = reserve / 2

    def left(self) -> float:
        """Returns the seconds left for the backends; negative once the deadline has passed."""
        return self._due - self._loop.time()

    def left_after_failure(self) -> float:
        """Returns the seconds left for the other backends after one has failed.

        A backend that times out leaves no time. The retry of the remaining backends, with the blend
        of their models, therefore gets half of the reserve.
        """
        return self.left() + self._extension
