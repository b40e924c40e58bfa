"""The lane that all batches of a gateway share: what they may compute at once, and when they wait.

A batch is work for minutes, and single calls are answered in milliseconds. So batches have a budget
of their own, counted by what their subjects cost, and give way: between two slices of work they
leave the event loop to single calls for a multiple of the time that they have had.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.server.waiting_room import WaitingRoom

# A page of so many items costs about as much again as ranking the catalogue for it.
_ITEMS_PER_COST = 50
_REASONS_COST = 4
# While there are single calls, a batch rests for this multiple of the time that the event loop
# took for its last turn, and for at most so many seconds.
_REST = 1.0
_LONGEST_REST_S = 0.05
# Single calls of the last second count: there will be more.
_RECENT_S = 1.0


def subject_cost(request: pb.BatchRecommendRequest | pb.RecommendRequest) -> int:
    """What the answer to one subject costs; that of the default page, without reasons, costs 1."""
    items = request.page_size or DEFAULT_PAGE_SIZE
    cost = 1 + items // _ITEMS_PER_COST
    return cost * _REASONS_COST if request.options.include_reasons else cost


class BatchLane:
    """The budget of all batches of a gateway.

    Attributes:
        is_draining: Whether the gateway shuts down, so that no further subjects are begun.
    """

    def __init__(self, budget: int, had_single_within: Callable[[float], bool]) -> None:
        """Creates a lane.

        Args:
            budget: The cost of the subjects that are computed at the same time.
            had_single_within: Whether there were single calls in the last so many seconds.
        """
        self.is_draining = False
        self._room = WaitingRoom(lambda: budget, is_overloaded=lambda: False)
        self._had_single_within = had_single_within

    @asynccontextmanager
    async def slot(self, cost: int) -> AsyncIterator[None]:
        """Surrounds the computation of a subject; waits until the budget allows it.

        A subject that costs more than the whole budget is computed alone.
        """
        await self._room.enter(cost, patience_s=math.inf)
        try:
            await self.give_way()
            yield
        finally:
            self._room.leave(cost)

    async def give_way(self) -> None:
        """Lets other tasks run, and rests while there are single calls."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(0)
        if self._had_single_within(_RECENT_S):
            took = loop.time() - start
            await asyncio.sleep(min(_LONGEST_REST_S, _REST * took))
