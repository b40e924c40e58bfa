"""EASE: a linear model of which items go together (Steck, 2019 and 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.item_weights import ItemWeights, ItemWeightsConfig
from marquee_core.scorers.scorer import ReleaseData

_PRECISIONS = "precisions.npy"


@dataclass(frozen=True)
class EASEConfig(ItemWeightsConfig):
    """EASE.

    Attributes:
        minimum_stars: As `ItemWeightsConfig`, as are the two after it.
        indifference: 0 leaves all but likes out.
        history_decay: 0 for none.
        regularisation: c in λ = c √n̄, where n̄ is the mean number of likes of an item: counts are
            as uncertain as their square roots.
        dropout: p, the share of a user's items that the weights must do without.
        activity_damping: s; a user of n items weighs in proportion to (1 + n)^−s.
        max_items: The most liked items that the dense weights cover. They take 4 m² bytes to
            serve and three times that to fit: 100 MB and 300 MB for 5,000 items.
    """

    minimum_stars: float = 3.0
    indifference: float = 0.0
    history_decay: float = 0.0
    regularisation: float = 70.0
    max_items: int = 5_000
    dropout: float = 0.0
    activity_damping: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: {self.dropout} is not in 0 to below 1")
        self._refuse_negative("activity_damping")


class EASEScorer:
    """Scores x·B: x is how much what a user rated counts, and B the learned weights."""

    output = Output.AFFINITY

    def __init__(self, config: EASEConfig, weights: ItemWeights, precisions: Float32) -> None:
        """Takes what was learned.

        Args:
            config: The configuration.
            weights: B, of m items.
            precisions: The diagonal of the inverse that B comes from (float32, m).
        """
        self.config = config
        self._weights = weights
        self._precisions = precisions

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Maps what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        weights = ItemWeights.load(folder, data.matrix.item_count)
        precisions = load_array(folder / _PRECISIONS, np.float32, (len(weights.items),))
        if not ((precisions > 0) & np.isfinite(precisions)).all():
            raise ArtifactError(f"{_PRECISIONS}: not all finite and above 0")
        return cls(load_config(folder, EASEConfig), weights, precisions)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays to a folder."""
        save_config(folder, self.config)
        self._weights.save(folder)
        save_array(folder / _PRECISIONS, self._precisions)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        scores = self._weights.score(profiles, self.config)
        return scores if items is None else scores[:, items]

    def similarities(self, item: int) -> Float32 | None:
        """The partial correlation of an item with each item, all others held fixed.

        B is not symmetric and has no scale. With P the inverse that it comes from, B_ij =
        −P_ij / P_jj, while −P_ij / √(P_ii P_jj) = B_ij √(P_jj / P_ii) is the partial correlation
        of the Gaussian model that EASE fits, which has both.
        """
        row = np.zeros(self._weights.item_count, dtype=np.float32)
        place = self._weights.places[item]
        if place >= 0:
            scale = np.sqrt(self._precisions / self._precisions[place])
            row[self._weights.items] = np.clip(self._weights.weights[place] * scale, -1.0, 1.0)
        row[item] = 1.0
        return row
