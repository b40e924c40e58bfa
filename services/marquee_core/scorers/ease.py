"""EASE: a linear ranker with weights between items (Steck, 2019 and 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np

from marquee_core.arrays import Bool, Float32, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.retrieval.exact import Found
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.hyperparameters import DropoutRate, NonNegativeFloat, Search
from marquee_core.scorers.item_weights import HistoryScorer, ItemWeights, ItemWeightsConfig
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData

_PRECISIONS = "precisions.npy"


@dataclass(frozen=True)
class EASEConfig(ItemWeightsConfig):
    """The hyperparameters of EASE.

    Attributes:
        minimum_stars: See `ItemWeightsConfig`.
        indifference: See `ItemWeightsConfig`.
        dislike_weight: See `ItemWeightsConfig`.
        dislike_decay: See `ItemWeightsConfig`.
        fitted_dislike: See `ItemWeightsConfig`.
        history_decay: See `ItemWeightsConfig`; it applies to scoring only, not to fitting.
        regularisation: c in λ = c √n̄, where n̄ is the mean number of likes per item. λ follows the
            standard deviation of a count, which is its square root.
        max_items: See `ItemWeightsConfig`. The weights of m items take 4 m² bytes when serving
            and three times as much while fitting: 100 MB and 300 MB for 5,000 items.
        dropout: p, the probability with which each of a user's items is dropped as an input.
        activity_damping: s; a user with n items has a weight proportional to (1 + n)^−s in
            fitting. With 0 all users have the same weight.
    """

    minimum_stars: Annotated[float, Search(1.0, 4.0, log=False)] = 3.0
    indifference: float = 0.0
    dislike_weight: float = 1.0
    dislike_decay: float = 1.0
    fitted_dislike: float = 0.0
    history_decay: float = 0.0
    regularisation: Annotated[float, Search(20.0, 300.0)] = 70.0
    max_items: int = 5_000
    dropout: DropoutRate = 0.0
    activity_damping: NonNegativeFloat = 0.0


class EASEScorer:
    """Scores x·B, where x is the user's history and B the learned weights; see `HistoryScorer`."""

    output = Output.AFFINITY

    def __init__(
        self, data: ReleaseData, config: EASEConfig, weights: ItemWeights, precisions: Float32
    ) -> None:
        """Creates a scorer from fitted weights.

        Args:
            data: The training ratings.
            config: The configuration.
            weights: B, between m items.
            precisions: The diagonal of P, the inverse matrix that B is computed from (float32, m).
        """
        self.config = config
        self._weights = weights
        self._precisions = precisions
        self._histories = HistoryScorer.of(weights, config, data)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads what `save` wrote; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        weights = ItemWeights.load(folder, data.matrix.item_count)
        precisions = load_array(folder / _PRECISIONS, np.float32, (len(weights.items),))
        if not ((precisions > 0) & np.isfinite(precisions)).all():
            raise ArtifactError(f"{_PRECISIONS}: a value is not finite and positive")
        return cls(data, load_config(folder, EASEConfig), weights, precisions)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays to a folder."""
        save_config(folder, self.config)
        self._weights.save(folder)
        save_array(folder / _PRECISIONS, self._precisions)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        return self._histories.score(profiles, items)

    def retrieve(self, profiles: Profiles, count: int, eligible: Bool | None) -> list[Found]:
        """See `Retrieves.retrieve`."""
        return self._histories.retrieve(profiles, count, eligible)

    def similarities(self, item: int) -> Float32 | None:
        """The partial correlation of an item with each item, given all other items.

        B itself is neither symmetric nor bounded: B_ij = −P_ij / P_jj, where P is the inverse
        matrix that B is computed from. The partial correlation in the Gaussian model that EASE
        fits is both: −P_ij / √(P_ii P_jj) = B_ij √(P_jj / P_ii).
        """
        row = np.zeros(self._weights.item_count, dtype=np.float32)
        position = self._weights.positions[item]
        if position >= 0:
            scale = np.sqrt(self._precisions / self._precisions[position])
            correlations = self._weights.weights[position] * scale
            row[self._weights.items] = np.clip(correlations, -1.0, 1.0)
        row[item] = 1.0
        return row

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`: the contributions are x_j B_ji."""
        return [
            self._histories.evidence(profile, item, self.similarities(item), count)
            for item in items.tolist()
        ]
