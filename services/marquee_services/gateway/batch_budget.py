"""The budget that all batches of a gateway share, and when batches yield to single calls.

A batch takes minutes, a single call milliseconds. Batches therefore have a separate budget, counted
in the cost of their subjects. Between two slices of work they also leave the event loop to single
calls, for as long as its last turn took.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.server.admission.admission_queue import AdmissionQueue

# Assembling a page of this many items costs about as much as ranking the catalogue.
_ITEMS_PER_COST = 50
_REASONS_COST = 4
# After a recent single call, a batch pauses for this multiple of the time that the event loop took
# for its last turn, up to the longest pause.
_PAUSE_PER_TURN = 1.0
_MAX_PAUSE_S = 0.05
# A single call in the last second suggests that more will follow.
_RECENT_S = 1.0


def subject_cost(request: pb.BatchRecommendRequest | pb.RecommendRequest) -> int:
    """Returns the cost of answering one subject; the default page without reasons costs 1."""
    items = request.page_size or DEFAULT_PAGE_SIZE
    cost = 1 + items // _ITEMS_PER_COST
    return cost * _REASONS_COST if request.options.include_reasons else cost


class BatchBudget:
    """The budget of all batches of a gateway.

    Attributes:
        is_draining: Whether the gateway is shutting down, so that no further subjects are started.
    """

    def __init__(self, budget: int, had_single_within: Callable[[float], bool]) -> None:
        """Creates a budget.

        Args:
            budget: The cost of the subjects that may be computed at the same time.
            had_single_within: Returns whether there was a single call in the last given number of
                seconds.
        """
        self.is_draining = False
        self._queue = AdmissionQueue(lambda: budget, is_overloaded=lambda: False)
        self._had_single_within = had_single_within

    @asynccontextmanager
    async def slot(self, cost: int) -> AsyncIterator[None]:
        """Waits until the budget allows a subject, and returns a context in which it is computed.

        A subject that costs more than the whole budget is computed with no other at the same time.

        Args:
            cost: The cost of the subject, in the unit of `subject_cost`.
        """
        await self._queue.enter(cost, max_wait_s=math.inf)
        try:
            await self.give_way()
            yield
        finally:
            self._queue.leave(cost)

    async def give_way(self) -> None:
        """Lets other tasks run. After a single call in the last second, also pauses once.

        The pause is as long as the other tasks took, but at most 50 ms.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(0)
        if self._had_single_within(_RECENT_S):
            took = loop.time() - start
            await asyncio.sleep(min(_MAX_PAUSE_S, _PAUSE_PER_TURN * took))
