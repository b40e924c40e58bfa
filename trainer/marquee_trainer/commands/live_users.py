"""Simulated users who request recommendations from gateways and rate what they are shown."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from marquee import AsyncClient, FeedbackEvent, Unavailable
from marquee_trainer.data.sample import SampleTastes

SHOWN = 10
"""Number of items in a list."""

WATCHED = 5
"""Number of items from the top of a list that a user watches and rates."""

_PARALLEL = 16
_POLL_S = 0.005
# Far longer than any effect takes; without a limit, a bug would hang the demo.
_EFFECT_TIMEOUT_S = 30.0
_RECORD_TIMEOUT_S = 60.0


class SimulatedUsers:
    """The users of a sample, with the tastes that the sample was generated from.

    Attributes:
        acknowledged: The user and the event id of every event that a gateway has acknowledged.
        degraded: Number of degraded answers.
    """

    def __init__(self, clients: Sequence[AsyncClient], tastes: SampleTastes, seed: int) -> None:
        """Creates the users.

        Args:
            clients: A client of each gateway; users call any of them.
            tastes: The users' opinions of items.
            seed: Seed for the random part of their ratings.
        """
        self._clients = tuple(clients)
        self._tastes = tastes
        self._seed = seed
        self._random = np.random.default_rng(seed)
        self._slots = asyncio.Semaphore(_PARALLEL)
        self.acknowledged: set[tuple[str, str]] = set()
        self.degraded = 0

    async def rate_lists(self, users: Iterable[str]) -> None:
        """Lets each user get a list from one gateway and rate its first items through another.

        Users who have rated every item get an empty list and rate nothing.
        """
        await asyncio.gather(*(self._rate_list(user) for user in users))

    async def measure_delays(self, users: Iterable[str]) -> list[float]:
        """Measures how long feedback takes to change the answers of another gateway.

        Each user rates the first item of a list; the delay ends when the other gateway no longer
        recommends it.

        Returns:
            Seconds from the acknowledgement of the event to the end of the call that shows its
            effect, for each user who has not rated every item.
        """
        delays = [await self._delay(user) for user in users]
        return [delay for delay in delays if delay is not None]

    async def _rate_list(self, user: str) -> None:
        async with self._slots:
            reader, writer = self._pick(2)
            page = await reader.recommend(user, page_size=SHOWN)
            self.degraded += page.source.degraded
            items = [item.item_id for item in page[:WATCHED]]
            if items:
                await self._rate(writer, user, items, page.recommendation_id)

    async def _delay(self, user: str) -> float | None:
        reader, writer = self._pick(2)
        page = await reader.recommend(user, page_size=1)
        if not page.items:
            return None
        rated = page[0].item_id
        await self._rate(writer, user, [rated], page.recommendation_id)
        start = time.perf_counter()
        while any(item.item_id == rated for item in await reader.recommend(user, page_size=1)):
            if time.perf_counter() - start > _EFFECT_TIMEOUT_S:
                raise TimeoutError(
                    f"a rating of user {user} had no effect in {_EFFECT_TIMEOUT_S} s"
                )
            await asyncio.sleep(_POLL_S)
        return time.perf_counter() - start

    async def _rate(
        self, client: AsyncClient, user: str, items: Sequence[str], list_id: str
    ) -> None:
        events = [
            FeedbackEvent(
                user_id=user,
                item_id=item,
                stars=self._stars(user, item),
                recommendation_id=list_id,
            )
            for item in items
        ]
        deadline = time.monotonic() + _RECORD_TIMEOUT_S
        while True:
            try:
                await client.feedback.record(events)
                break
            except Unavailable:
                # The disk may be slow for a moment. Repeated events count once.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL_S)
        self.acknowledged.update((user, event.event_id) for event in events)

    def _stars(self, user: str, item: str) -> float:
        """The stars that a user gives to an item; they do not depend on the order of requests."""
        pair = zlib.crc32(f"{user}\0{item}".encode())
        return self._tastes.stars(user, item, np.random.default_rng([self._seed, pair]))

    def _pick(self, count: int) -> list[AsyncClient]:
        """Clients of different gateways, in random order."""
        positions = self._random.permutation(len(self._clients))[:count]
        return [self._clients[position] for position in positions]
