"""Each user's best items by the whole ranking, and which models propose them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64
from marquee_services.scoring.plan import TopItems
from marquee_services.scoring.ranking import UserRanking

_NONE: Int32 = np.empty(0, np.int32)


@dataclass(frozen=True)
class TopBatch:
    """The best items of B users, one user after the other, each user's best first.

    Attributes:
        items: The item indexes (int32, n).
        counts: The number of items of each user (int64, B).
        scores: The weighted sum of the models' scores of each item (float32, n).
        proposers: The models that have an item among their own best; see `TopItems` (int32, n).
        biases: Each user's bias in the baseline, in stars.
    """

    items: Int32
    counts: Int64
    scores: Float32
    proposers: Int32
    biases: Sequence[float]

    @classmethod
    def of(cls, rankings: Sequence[UserRanking], models: Sequence[str]) -> TopBatch:
        """Collects the best items of rankings that were made with a `top_count`.

        Users whom one of the models cannot score have none: the sum lacks a part.

        Args:
            rankings: The ranking of each user, of whom there is at least one.
            models: The models that rank, at most `MAX_TOP_MODELS`.
        """
        tops = [_NONE if ranking.abstaining else ranking.top for ranking in rankings]
        counts = np.array([len(top) for top in tops], dtype=np.int64)
        items = np.concatenate(tops)
        scores = [ranking.scores[top] for ranking, top in zip(rankings, tops, strict=True)]
        # For all items of the catalogue, which models have them among their own best.
        proposed = np.zeros((len(rankings), len(rankings[0].scores)), dtype=np.int32)
        rows = np.arange(len(rankings))
        for bit, name in enumerate(models):
            best = [ranking.best[name][0] for ranking in rankings]
            places = np.repeat(rows, [len(own) for own in best]), np.concatenate(best)
            proposed[places] |= 1 << bit
        return cls(
            items,
            counts,
            np.concatenate(scores),
            proposed[np.repeat(rows, counts), items],
            [ranking.bias for ranking in rankings],
        )

    def users(self) -> list[TopItems]:
        """The best items of each user."""
        ends = np.cumsum(self.counts).tolist()
        return [
            TopItems(self.items[start:end], self.scores[start:end], self.proposers[start:end], bias)
            for (start, end), bias in zip(pairwise([0, *ends]), self.biases, strict=True)
        ]
