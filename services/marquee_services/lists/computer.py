"""Computes the lists of users: in blocks where the release and the request allow it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from marquee_core.arrays import Int32
from marquee_core.tasks.task import Report
from marquee_services.lists.blocks import BlockRanker
from marquee_services.lists.release import LoadedRelease
from marquee_services.lists.request import ListRequest
from marquee_services.lists.single import SingleLists
from marquee_services.lists.user_list import UserError, UserList

# The number of users that `single.py` handles between reports of progress.
_SINGLE_USERS = 16


class ListComputer:
    """Computes lists with the engines of a release in this process."""

    def __init__(self, loaded: LoadedRelease, request: ListRequest) -> None:
        """Prepares what all lists share.

        Args:
            loaded: The release and its engines.
            request: The description of the lists.
        """
        self._release = loaded.gateway
        self._single = SingleLists(loaded, request)
        can_rank = BlockRanker.can_rank(loaded, request)
        self._blocks = BlockRanker(loaded, request) if can_rank else None

    def of_users(self, users: Int32, report: Report) -> list[UserList | UserError]:
        """Returns the answers for users of the release, in their order.

        Args:
            users: The users' indexes (int32, n).
            report: Called with the number of users whose answers have been computed since.
        """
        return self._answers(users, self._release.users.ids(users), report)

    def of_ids(self, user_ids: Sequence[str], report: Report) -> list[UserList | UserError]:
        """Returns the answers for users by id, known or not, in their order."""
        return self._answers(self._release.users.indexes(user_ids), user_ids, report)

    def _answers(
        self, users: Int32, user_ids: Sequence[str], report: Report
    ) -> list[UserList | UserError]:
        answers: dict[int, UserList | UserError] = {}
        if self._blocks is not None:
            indptr = self._release.data.matrix.indptr
            known = np.maximum(users, 0)
            rated = np.flatnonzero((users >= 0) & (indptr[known + 1] > indptr[known]))
            for start in range(0, len(rated), self._blocks.block_users):
                positions = rated[start : start + self._blocks.block_users]
                found = self._blocks.rank(users[positions])
                done = {
                    position: one
                    for position, one in zip(positions.tolist(), found, strict=True)
                    if one is not None
                }
                answers |= done
                report(len(done))
        left = [position for position in range(len(user_ids)) if position not in answers]
        if left:
            _run(self._compute_singly(left, user_ids, answers, report))
        return [answers[position] for position in range(len(user_ids))]

    async def _compute_singly(
        self,
        positions: Sequence[int],
        user_ids: Sequence[str],
        answers: dict[int, UserList | UserError],
        report: Report,
    ) -> None:
        """Adds the answers for the users at some positions.

        All of them in one run of an event loop: when a run ends, asyncio looks its signal handler
        up, which costs more than a user if the run returns lists.
        """
        for start in range(0, len(positions), _SINGLE_USERS):
            batch = positions[start : start + _SINGLE_USERS]
            single = await self._single.lists([user_ids[position] for position in batch])
            answers |= zip(batch, single, strict=True)
            report(len(batch))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine, in another thread if this one runs an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, work).result()
