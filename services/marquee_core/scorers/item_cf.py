"""Item-based collaborative filtering: what a user thinks of similar items."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.neighbours import (
    CoRatings,
    NeighbourConfig,
    Neighbours,
    column_sums,
    csr_matrix,
)
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData


@dataclass(frozen=True)
class ItemCFConfig(NeighbourConfig):
    """Item-based collaborative filtering."""

    neighbours: int = 100
    shrinkage: float = 30.0
    overlap_power: float = 2.0
    damping: float = 0.03


def item_residuals(data: ReleaseData) -> CoRatings:
    """Residuals r − b_ui in stars: rows are items, columns users."""
    matrix = data.matrix
    residuals = data.baseline.residuals(matrix.all_profiles())
    by_user = csr_matrix(matrix.indptr, matrix.items, residuals, matrix.item_count)
    return CoRatings.of(by_user.T.tocsr())


class ItemCFScorer:
    """Predicts b_ui + Σ_j s_ij e_uj / (Σ_j s_ij + δ S_i).

    j are the item's neighbours that the user rated, s similarities, e residuals r − b_ui, S_i the
    total similarity of all the item's neighbours and δ the damping. The profile is all that is
    needed of a user, so known users and visitors are one case.
    """

    output = Output.STARS

    def __init__(self, data: ReleaseData, neighbours: Neighbours, config: ItemCFConfig) -> None:
        """Takes the training ratings, the neighbours of each item, and the configuration."""
        self.config = config
        self._baseline = data.baseline
        self._neighbours = neighbours
        similarities = neighbours.matrix()
        # By column: for each rated item, the items that it speaks for.
        self._similarities = similarities.tocsc()
        totals: Float32 = similarities.sum(axis=1)
        # Without neighbours the sums are 0, and so is their quotient whatever it is damped by.
        self._item_damping = np.where(totals > 0, config.damping * totals, 1.0).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Reads what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        neighbours = Neighbours.load(folder, data.matrix.item_count)
        return cls(data, neighbours, load_config(folder, ItemCFConfig))

    def save(self, folder: Path) -> None:
        """Writes the configuration and the neighbours to a folder."""
        save_config(folder, self.config)
        self._neighbours.save(folder)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        scores = self._baseline.score(profiles)
        for place, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            rated = profiles.items[start:end]
            residuals = profiles.ratings[start:end] - scores[place, rated]
            weights = column_sums(self._similarities, rated, np.ones_like(residuals))
            weights += self._item_damping
            scores[place] += column_sums(self._similarities, rated, residuals) / weights
        return scores if items is None else scores[:, items]

    def similarities(self, item: int) -> Float32 | None:
        """The item's similarity to its neighbours, 0 to all other items, 1 to itself."""
        row = np.zeros(len(self._neighbours), dtype=np.float32)
        neighbours, similarities = self._neighbours.row(item)
        row[neighbours] = similarities
        row[item] = 1.0
        return row

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """As `ExplainsByItems.rated_evidence`, of one user; in order of absolute contribution."""
        residuals = self._baseline.residuals(profile)
        return [self._evidence(profile.items, residuals, int(item), count) for item in items]

    def _evidence(self, rated: Int32, residuals: Float32, item: int, count: int) -> RatedEvidence:
        neighbours, similarities = self._neighbours.row(item)
        common, of_rated, of_neighbours = np.intersect1d(
            rated, neighbours, assume_unique=True, return_indices=True
        )
        weights = similarities[of_neighbours]
        contributions = weights * residuals[of_rated] / (weights.sum() + self._item_damping[item])
        order = np.argsort(-np.abs(contributions), kind="stable")[:count]
        return RatedEvidence(common[order], weights[order], contributions[order])
