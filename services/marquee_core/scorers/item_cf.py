"""Item-based collaborative filtering: predicts ratings from the user's ratings of similar items."""

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
from marquee_core.scorers.neighbours import NeighbourConfig, Neighbours
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData
from marquee_core.scorers.sparse import (
    ColumnMatrix,
    SelectedColumns,
    column_sums,
    csr_matrix,
)

# Up to this number of items, scoring reads only the neighbours of these items.
_MAX_PAIRS = 64


@dataclass(frozen=True)
class ItemCFConfig(NeighbourConfig):
    """The hyperparameters of item-based collaborative filtering; see `NeighbourConfig`."""

    neighbours: int = 100
    shrinkage: float = 30.0
    overlap_power: float = 2.0
    damping: float = 0.03


def item_residuals(data: ReleaseData) -> ColumnMatrix:
    """Returns residuals r − b_ui of the training ratings, in stars (float32, items × users)."""
    matrix = data.matrix
    residuals = data.baseline.residuals(matrix.all_profiles())
    return csr_matrix(matrix.indptr, matrix.items, residuals, matrix.item_count).T


class ItemCFScorer:
    """Predicts b_ui + Σ_j s_ij e_uj / (Σ_j s_ij + δ S_i).

    The sum runs over the neighbours j of item i that the user rated; s_ij is the similarity, e_uj
    the residual r_uj − b_uj, S_i the total similarity of all neighbours of i, and δ the damping.
    A prediction depends on the user's profile only, so known users and visitors are scored by the
    same code.
    """

    output = Output.STARS

    def __init__(self, data: ReleaseData, neighbours: Neighbours, config: ItemCFConfig) -> None:
        """Prepares the neighbours for scoring.

        Args:
            data: The training ratings and their baseline.
            neighbours: The neighbours of each item.
            config: The configuration with which the neighbours were computed.
        """
        self.config = config
        self._baseline = data.baseline
        self._neighbours = neighbours
        similarities = neighbours.matrix()
        # Transposed: column i holds the neighbours of item i.
        self._of_items = similarities.T
        # Stored by column: for each rated item, the items that have it as a neighbour.
        self._similarities = similarities.tocsc()
        totals: Float32 = similarities.sum(axis=1)
        # For an item without neighbours the numerator is 0, so any positive denominator will do.
        self._item_damping = np.where(totals > 0, config.damping * totals, 1.0).astype(np.float32)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        neighbours = Neighbours.load(folder, data.matrix.item_count)
        return cls(data, neighbours, load_config(folder, ItemCFConfig))

    def save(self, folder: Path) -> None:
        """Writes the configuration and the neighbours to a folder."""
        save_config(folder, self.config)
        self._neighbours.save(folder)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        if items is not None and len(items) <= _MAX_PAIRS:
            return self.score_pairs(profiles, np.tile(items, (len(profiles), 1)))
        scores = self._baseline.score(profiles)
        for row, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            rated = profiles.items[start:end]
            residuals = profiles.ratings[start:end] - scores[row, rated]
            weights = column_sums(self._similarities, rated, np.ones_like(residuals))
            weights += self._item_damping
            scores[row] += column_sums(self._similarities, rated, residuals) / weights
        return scores if items is None else scores[:, items]

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """See `ScoresPairs.score_pairs`."""
        scores = self._baseline.score_pairs(profiles, items)
        if not items.size:
            return scores
        all_residuals = self._baseline.residuals(profiles)
        residuals, is_rated = np.zeros((2, len(self._neighbours)), dtype=np.float32)
        orders = np.argsort(items, axis=1, kind="stable")
        for row, (start, end) in enumerate(pairwise(profiles.indptr.tolist())):
            rated = profiles.items[start:end]
            residuals[rated], is_rated[rated] = all_residuals[start:end], 1.0
            order = orders[row]
            sorted_items = items[row, order]
            selected = SelectedColumns(self._of_items, sorted_items)
            weights = selected.products(is_rated, self._of_items.data)
            weights += self._item_damping[sorted_items]
            scores[row, order] += selected.products(residuals, self._of_items.data) / weights
            residuals[rated], is_rated[rated] = 0.0, 0.0
        return scores

    def similarities(self, item: int) -> Float32:
        """See `ComparesItems.similarities`; 0 for items that are not neighbours."""
        row = np.zeros(len(self._neighbours), dtype=np.float32)
        neighbours, similarities = self._neighbours.row(item)
        row[neighbours] = similarities
        row[item] = 1.0
        return row

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`; the remainder is the baseline's prediction."""
        residuals = self._baseline.residuals(profile)
        baseline = self._baseline.score(profile, items)[0].tolist()
        return [
            self._evidence(profile.items, residuals, item, remainder, count)
            for item, remainder in zip(items.tolist(), baseline, strict=True)
        ]

    def _evidence(
        self, rated: Int32, residuals: Float32, item: int, remainder: float, count: int
    ) -> RatedEvidence:
        neighbours, similarities = self._neighbours.row(item)
        common, of_rated, of_neighbours = np.intersect1d(
            rated, neighbours, assume_unique=True, return_indices=True
        )
        weights = similarities[of_neighbours]
        contributions = weights * residuals[of_rated] / (weights.sum() + self._item_damping[item])
        return RatedEvidence.largest(common, weights, contributions, remainder, count)
