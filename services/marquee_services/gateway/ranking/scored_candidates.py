"""The scores of a subject's candidates, by each model and by the ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int32
from marquee_core.release.ensemble import BlendPair
from marquee_services.gateway.backends.failures import BackendError


@dataclass(frozen=True)
class ScoredCandidates:
    """The scores of a subject's C candidates.

    Attributes:
        items: The candidates' item indexes (int32, C); None for the whole catalogue.
        outputs: The scores of each model by name (float32, C).
        blends: The ensemble's blends of these models, for ratings and for ranking.
        backends: The backends that answered.
        scale: The lowest and the highest rating, in stars.
        failures: Why the other backends did not answer.
        abstaining: The models that cannot score this subject.
        tiers: The retrieval round in which each candidate was found, from 0 (int32, C); None when
            there was only one. Candidates of earlier rounds rank first, so that a further
            retrieval appends to the list and does not reorder it.
    """

    items: Int32 | None
    outputs: Mapping[str, Float32]
    blends: BlendPair
    backends: frozenset[str]
    scale: tuple[float, float]
    failures: tuple[BackendError, ...]
    abstaining: tuple[str, ...]
    tiers: Int32 | None = None

    @cached_property
    def ranking(self) -> Float64:
        """The ensemble's ranking scores (float64, C)."""
        return self.blends.ranking.apply(self.outputs)

    @cached_property
    def stars(self) -> Float64:
        """The ensemble's predicted ratings in stars, clipped to the scale (float64, C)."""
        return np.clip(self.blends.rating.apply(self.outputs), *self.scale)

    @property
    def nbytes(self) -> int:
        """Roughly how many bytes of memory the scores take."""
        size = len(next(iter(self.outputs.values())))
        return size * (4 * len(self.outputs) + 2 * 8 + 4)

    def extended(self, more: ScoredCandidates) -> ScoredCandidates:
        """These candidates followed by further ones, which rank after all of these."""
        assert self.items is not None  # noqa: S101 - the whole catalogue cannot be extended
        assert more.items is not None  # noqa: S101
        tiers = np.zeros(len(self.items), np.int32) if self.tiers is None else self.tiers
        next_tier = int(tiers.max(initial=-1)) + 1
        return replace(
            self,
            items=np.concatenate([self.items, more.items]),
            outputs={
                name: np.concatenate([scores, more.outputs[name]])
                for name, scores in self.outputs.items()
            },
            tiers=np.concatenate([tiers, np.full(len(more.items), next_tier, np.int32)]),
        )

    def item_indexes(self, positions: Int32) -> Int32:
        """The item indexes of the candidates at the given positions."""
        return positions if self.items is None else self.items[positions]

    def proposers(self, positions: Int32, eligible: Bool, count: int) -> list[list[str]]:
        """The models that rank each candidate among their own best.

        A model that gives all eligible candidates the same score proposes none.

        Args:
            positions: Positions among the candidates (int32, n).
            eligible: Which candidates the filters allow (bool, C).
            count: How many candidates count as a model's best.

        Returns:
            The models' names for each position, sorted (n lists).
        """
        if not len(positions):
            return []
        names = sorted(name for name in self.blends.models() if name in self.outputs)
        outputs = np.stack([self.outputs[name] for name in names])
        pool = outputs[:, eligible]
        cut = max(0, pool.shape[1] - count)
        pool.partition(cut, axis=1)
        best = pool[:, cut:]
        differs = best.min(axis=1) < best.max(axis=1)
        # Only a model whose best scores are all equal can have scored everything alike.
        differs[~differs] = pool[~differs].min(axis=1) < pool[~differs].max(axis=1)
        is_among_best = (outputs[:, positions] >= pool[:, cut, None]) & differs[:, None]
        return [
            [name for name, is_best in zip(names, column, strict=True) if is_best]
            for column in is_among_best.T.tolist()
        ]
