"""Scores of a subject's candidates: the models' and the ensemble's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from marquee_core.arrays import Bool, Float32, Float64, Int32
from marquee_core.release.ensemble import BlendPair
from marquee_services.gateway.backends.failures import BackendError


@dataclass(frozen=True)
class Scored:
    """Scores of a subject's candidates.

    Attributes:
        items: The candidates (int32, C); None for the whole catalogue.
        outputs: Each model's scores (float32, C).
        blends: The blends that the ensemble used.
        backends: The backends that took part.
        scale: The lowest and highest rating, in stars.
        failures: Why other backends did not.
        abstaining: Models that cannot answer the subject.
        tiers: Of candidates that were retrieved in turns, the turn of each (int32, C): those of an
            earlier turn rank first, so a longer list begins with the shorter one. None for one.
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
        """The ensemble's score for order (float64, C)."""
        return self.blends.ranking.apply(self.outputs)

    @cached_property
    def stars(self) -> Float64:
        """The predicted ratings, within the scale (float64, C)."""
        return np.clip(self.blends.rating.apply(self.outputs), *self.scale)

    @property
    def nbytes(self) -> int:
        """About how much memory the scores take."""
        size = len(next(iter(self.outputs.values())))
        return size * (4 * len(self.outputs) + 2 * 8 + 4)

    def extended(self, more: Scored) -> Scored:
        """With further candidates, which rank after all of these."""
        assert self.items is not None  # noqa: S101 - a whole catalogue has no further candidates
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

    def item_indexes(self, places: Int32) -> Int32:
        """The item indexes at places among the candidates."""
        return places if self.items is None else self.items[places]

    def proposers(self, places: Int32, eligible: Bool, count: int) -> list[list[str]]:
        """For each place, the models that have it among their own best, by name.

        A model that scores all candidates alike has no best.

        Args:
            places: Places among the candidates.
            eligible: Which candidates qualify (bool, C).
            count: How many best of each model.
        """
        if not len(places):
            return []
        names = sorted(name for name in self.blends.models() if name in self.outputs)
        outputs = np.stack([self.outputs[name] for name in names])
        pool = outputs[:, eligible]
        cut = max(0, pool.shape[1] - count)
        pool.partition(cut, axis=1)
        best = pool[:, cut:]
        differs = best.min(axis=1) < best.max(axis=1)
        # Those whose best are alike, and no others, may score all alike.
        differs[~differs] = pool[~differs].min(axis=1) < pool[~differs].max(axis=1)
        among = (outputs[:, places] >= pool[:, cut, None]) & differs[:, None]
        return [
            [name for name, is_best in zip(names, column, strict=True) if is_best]
            for column in among.T.tolist()
        ]
