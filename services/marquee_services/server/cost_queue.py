"""A semaphore that counts costs: work waits in its order until there is room for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class CostQueue:
    """Admits work of different cost up to a limit, which may change.

    Attributes:
        in_progress: The cost in progress.
    """

    def __init__(self, limit: Callable[[], float]) -> None:
        """Creates a queue.

        Args:
            limit: Returns the cost that may be in progress at once.
        """
        self.in_progress = 0.0
        self._limit = limit
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """The number of pieces of work that wait, among them some that have given up."""
        return len(self._waiting)

    def has_room(self, cost: float) -> bool:
        """Whether work can begin at once. If nothing is in progress, it can whatever it costs."""
        return not self._waiting and self._fits(cost)

    async def enter(self, cost: float) -> None:
        """Waits until work can begin; `leave` must follow when it ends.

        Args:
            cost: The cost of the work.
        """
        if self.has_room(cost):
            self.in_progress += cost
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((cost, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(cost)
            raise

    def leave(self, cost: float) -> None:
        """Ends work, and begins what there is room for then.

        Args:
            cost: The cost of the work.
        """
        self.in_progress -= cost
        while self._waiting:
            cost, turn = self._waiting[0]
            if turn.done():  # Its caller has given up.
                self._waiting.popleft()
                continue
            if not self._fits(cost):
                return
            self._waiting.popleft()
            self.in_progress += cost
            turn.set_result(None)

    def _fits(self, cost: float) -> bool:
        return not self.in_progress or self.in_progress + cost <= self._limit()
