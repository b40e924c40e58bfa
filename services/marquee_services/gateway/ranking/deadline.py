"""How long the backends may take, so that the gateway still answers in time.

The caller's own deadline is enforced in `marquee_services.server.interceptor`, which ends a call
that takes longer. The deadline here is a little earlier: backends that have not answered by then
are left out, and the caller gets a degraded answer rather than an error.
"""

from __future__ import annotations

import asyncio


class Deadline:
    """The time by which the backends must have answered."""

    def __init__(self, seconds: float, reserve: float) -> None:
        """Sets the deadline.

        Args:
            seconds: Seconds from now until the caller's deadline.
            reserve: Seconds of these that the gateway keeps for building the answer.
        """
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds - reserve
        self._extension = reserve / 2

    def left(self) -> float:
        """Seconds that the backends have left; negative once the deadline has passed."""
        return self._due - self._loop.time()

    def left_after_failure(self) -> float:
        """Seconds that the other backends have left after one has failed.

        A backend that fails by not answering uses up all the time there is. The others then get
        half of the reserve, to answer with the blend for the remaining models.
        """
        return self.left() + self._extension
