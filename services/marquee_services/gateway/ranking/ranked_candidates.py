"""The ranking of a subject's candidates, before stars are predicted for those that are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.release.ensemble import BlendPair
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_indexes
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.backends.interface import AnyReplica
from marquee_services.scoring.plan import BestItems


@dataclass(frozen=True)
class RankedCandidates:
    """The ranking scores of a subject's C candidates.

    Attributes:
        items: The candidates' item indexes (int32, C); None for the whole catalogue.
        scores: The ensemble's ranking scores (float64, C).
        best: The best items of each model with a weight in the ranking, with their scores, by the
            model's name. A model that gives all candidates the same score has none.
        best_count: The maximum number of best items of each model.
        blends: The ensemble's blends for the backends that take part.
        backends: The backends that take part.
        failures: Why the other backends do not.
        abstaining: The models that cannot score this subject.
        replicas: The replica of each backend that ranked, by the backend's name.
        scored: The best items as the rating predictors of the backends that ranked score them.
        tiers: The retrieval round in which each candidate was found, from 0 (int32, C); None when
            there was only one. Candidates of earlier rounds rank first, so that a further
            retrieval appends to the list and does not reorder it.
    """

    items: Int32 | None
    scores: Float64
    best: Mapping[str, Found]
    best_count: int
    blends: BlendPair
    backends: frozenset[str]
    failures: tuple[BackendError, ...] = ()
    abstaining: tuple[str, ...] = ()
    replicas: Mapping[str, AnyReplica] = field(default_factory=dict)
    scored: tuple[BestItems, ...] = ()
    tiers: Int32 | None = None

    @cached_property
    def stars(self) -> Float32:
        """The predicted stars of the candidates, NaN where they have not been predicted yet.

        They are filled in while pages are cut (float32, C).
        """
        return np.full(len(self.scores), np.nan, dtype=np.float32)

    @property
    def nbytes(self) -> int:
        """Roughly how many bytes of memory the ranking takes, its stars included."""
        each = 12 + 4 * (self.items is not None) + 4 * (self.tiers is not None)
        return each * len(self.scores) + 8 * sum(len(items) for items, _ in self.best.values())

    def extended(self, more: RankedCandidates) -> RankedCandidates:
        """These candidates followed by further ones, which rank after all of these."""
        assert self.items is not None  # noqa: S101 - the whole catalogue cannot be extended
        assert more.items is not None  # noqa: S101
        tiers = np.zeros(len(self.items), np.int32) if self.tiers is None else self.tiers
        next_tier = int(tiers.max(initial=-1)) + 1
        extended = replace(
            self,
            items=np.concatenate([self.items, more.items]),
            scores=np.concatenate([self.scores, more.scores]),
            best={
                name: _best_of_both(self.best.get(name), more.best.get(name), self.best_count)
                for name in {**self.best, **more.best}
            },
            tiers=np.concatenate([tiers, np.full(len(more.items), next_tier, np.int32)]),
        )
        if "stars" in self.__dict__:
            extended.stars[: len(self.stars)] = self.stars
        return extended

    def detached(self) -> RankedCandidates:
        """The same ranking, without replicas and without views of the arrays of a whole batch."""
        best = {name: (items.copy(), scores.copy()) for name, (items, scores) in self.best.items()}
        detached = replace(self, best=best, replicas={}, scored=())
        if "stars" in self.__dict__:
            detached.stars[:] = self.stars
        return detached

    def known_scores(self, items: Int32) -> dict[str, Float32]:
        """The scores of rating predictors that came with the ranking (float32, n), by model.

        Args:
            items: Item indexes, distinct (int32, n).
        """
        known: dict[str, Float32] = {}
        for best in self.scored:
            if np.array_equal(best.items[: len(items)], items):
                known |= {name: scores[: len(items)] for name, scores in best.scores.items()}
                continue
            place_of = {item: place for place, item in enumerate(best.items.tolist())}
            places = [place_of.get(item, -1) for item in items.tolist()]
            if min(places, default=0) >= 0:
                known |= {name: scores[places] for name, scores in best.scores.items()}
        return known

    def item_indexes(self, positions: Int32) -> Int32:
        """The item indexes of the candidates at the given positions."""
        return positions if self.items is None else self.items[positions]

    def proposers(self, positions: Int32) -> list[list[str]]:
        """The models that have each candidate among their own best items.

        Args:
            positions: Positions among the candidates (int32, n).

        Returns:
            The models' names for each position, sorted (n lists).
        """
        proposers: dict[int, list[str]] = {
            item: [] for item in self.item_indexes(positions).tolist()
        }
        for name in sorted(self.best):
            for item in self.best[name][0].tolist():
                if item in proposers:
                    proposers[item].append(name)
        return list(proposers.values())


def _best_of_both(first: Found | None, second: Found | None, count: int) -> Found:
    """The best items of two disjoint selections of one model."""
    if first is None or second is None:
        found = first or second
        assert found is not None  # noqa: S101 - the model is in one of them
        return found
    items, scores = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    top = top_indexes(scores, count)
    return items[top], scores[top]
