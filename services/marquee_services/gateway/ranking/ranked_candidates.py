"""The ranking of a subject's candidates, before stars are predicted for the items of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.release.ensemble import BlendPair
from marquee_core.retrieval.exact import Found
from marquee_core.retrieval.top import top_indexes
from marquee_services.gateway.backends.failures import BackendFailure
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
        failures: Why the other backends do not take part.
        abstaining: The models that cannot score this subject.
        replicas: The replica of each backend that ranked, by the backend's name.
        scored: The best items, with the scores of the ranking backends' rating predictors.
        tiers: The retrieval round in which each candidate was found, starting at 0 (int32, C); None
            if there was only one. Candidates of earlier rounds rank first, so that a further
            retrieval appends to the list without reordering it.
        retrievals: The number of completed retrievals from a large catalogue. The rest of a
            shortlist that leaves out candidates must be retrieved again.
        top_count: The maximum length of a shortlist, which holds the best items of the whole
            catalogue or of the retrieved candidates in their order; 0 if the candidates are not a
            shortlist.
        proposing: For a shortlist, the models whose own best items are recorded in `proposers_of`
            instead of `best`.
        proposers_of: For a shortlist, the models that have each candidate among their own best
            items: bit m is set for model m of `proposing` (int32, C).
    """

    items: Int32 | None
    scores: Float64
    best: Mapping[str, Found]
    best_count: int
    blends: BlendPair
    backends: frozenset[str]
    failures: tuple[BackendFailure, ...] = ()
    abstaining: tuple[str, ...] = ()
    replicas: Mapping[str, AnyReplica] = field(default_factory=dict)
    scored: tuple[BestItems, ...] = ()
    tiers: Int32 | None = None
    retrievals: int = 0
    top_count: int = 0
    proposing: tuple[str, ...] = ()
    proposers_of: Int32 | None = None

    @property
    def is_shortlist(self) -> bool:
        """Whether the candidates are the best items of the whole catalogue, in their order."""
        return self.top_count > 0

    @property
    def is_incomplete(self) -> bool:
        """Whether there may be eligible items that are not on the shortlist."""
        return self.is_shortlist and len(self.scores) >= self.top_count

    @cached_property
    def stars(self) -> Float32:
        """The predicted stars of the candidates; NaN if not predicted yet (float32, C).

        They are filled in while pages are cut.
        """
        return np.full(len(self.scores), np.nan, dtype=np.float32)

    @cached_property
    def nbytes(self) -> int:
        """The approximate size of the ranking in bytes, including its stars."""
        arrays = self.items, self.tiers, self.proposers_of
        each = 12 + 4 * sum(array is not None for array in arrays)
        return each * len(self.scores) + 8 * sum(len(items) for items, _ in self.best.values())

    def extended(self, more: RankedCandidates) -> RankedCandidates:
        """Returns these candidates followed by further ones, which rank after all of these.

        The result is not a shortlist, even if these candidates are one.
        """
        assert self.items is not None  # noqa: S101 - the whole catalogue cannot be extended
        assert more.items is not None  # noqa: S101
        tiers = np.zeros(len(self.items), np.int32) if self.tiers is None else self.tiers
        next_tier = int(tiers.max(initial=-1)) + 1
        proposers_of = self.proposers_of
        if proposers_of is not None:
            others = more.proposers_of
            others = np.zeros(len(more.items), np.int32) if others is None else others
            proposers_of = np.concatenate([proposers_of, others])
        extended = replace(
            self,
            top_count=0,
            proposers_of=proposers_of,
            retrievals=more.retrievals,
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

    def without(self, before: RankedCandidates) -> RankedCandidates:
        """Returns these candidates without those of a shortlist of the same list."""
        assert self.items is not None  # noqa: S101 - a shortlist has items
        assert self.proposers_of is not None  # noqa: S101
        assert before.items is not None  # noqa: S101
        is_new = ~np.isin(self.items, before.items)
        return replace(
            self,
            items=self.items[is_new],
            scores=self.scores[is_new],
            proposers_of=self.proposers_of[is_new],
        )

    def continued(self, whole: RankedCandidates) -> RankedCandidates:
        """Returns this shortlist followed by the other items of the catalogue.

        Args:
            whole: The ranking of the whole catalogue by the same models.
        """
        assert self.items is not None  # noqa: S101 - a shortlist has items
        scores = whole.scores.copy()
        scores[self.items] = self.scores
        tiers = np.ones(len(scores), np.int32)
        tiers[self.items] = 0
        return replace(whole, scores=scores, tiers=tiers)

    def detached(self) -> RankedCandidates:
        """Returns the same ranking without replicas and without views into larger arrays."""
        best = {name: (items.copy(), scores.copy()) for name, (items, scores) in self.best.items()}
        # `replace` would take several times as long.
        detached = object.__new__(type(self))
        detached.__dict__.update(
            self.__dict__,
            items=None if self.items is None else self.items.copy(),
            proposers_of=None if self.proposers_of is None else self.proposers_of.copy(),
            best=best,
            replicas={},
            scored=(),
        )
        if "stars" in self.__dict__:
            detached.__dict__["stars"] = self.stars.copy()
        return detached

    def known_scores(self, items: Int32) -> dict[str, Float32]:
        """Returns the rating predictors' scores that came with the ranking, by model (float32, n).

        Args:
            items: Distinct item indexes (int32, n).
        """
        known: dict[str, Float32] = {}
        for best in self.scored:
            if best.items[: len(items)].tobytes() == items.tobytes():
                known |= {name: scores[: len(items)] for name, scores in best.scores.items()}
                continue
            position_of = {item: position for position, item in enumerate(best.items.tolist())}
            positions = [position_of.get(item, -1) for item in items.tolist()]
            if min(positions, default=0) >= 0:
                known |= {name: scores[positions] for name, scores in best.scores.items()}
        return known

    def item_indexes(self, positions: Int32) -> Int32:
        """Returns the item indexes of the candidates at the given positions."""
        return positions if self.items is None else self.items[positions]

    def proposers(self, positions: Int32) -> list[Sequence[str]]:
        """Returns the models that have each candidate among their own best items.

        Args:
            positions: Positions among the candidates (int32, n).

        Returns:
            The models' names for each position, sorted (n).
        """
        found: list[Sequence[str]]
        if self.proposers_of is None:
            found = [()] * len(positions)
        else:
            sets = self.proposers_of[positions].tolist()
            names_of = {bits: _names(self.proposing, bits) for bits in set(sets)}
            found = [names_of[bits] for bits in sets]
        if not self.best:
            return found
        proposers = dict(zip(self.item_indexes(positions).tolist(), found, strict=True))
        for name, (items, _) in self.best.items():
            for item in items.tolist():
                if item in proposers:
                    proposers[item] = (*proposers[item], name)
        return [sorted(names) for names in proposers.values()]


@lru_cache(maxsize=1024)
def _names(models: tuple[str, ...], bits: int) -> tuple[str, ...]:
    """Returns the sorted names of the models whose bits are set."""
    return tuple(sorted(name for number, name in enumerate(models) if bits >> number & 1))


def _best_of_both(first: Found | None, second: Found | None, count: int) -> Found:
    """Returns the best items of two disjoint selections of one model."""
    if first is None or second is None:
        found = first or second
        assert found is not None  # noqa: S101 - one of them has the model
        return found
    items, scores = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    top = top_indexes(scores, count)
    return items[top], scores[top]
