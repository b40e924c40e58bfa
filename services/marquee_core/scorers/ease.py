"""EASE: a linear ranker with weights between items (Steck, 2019 and 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.history_scorer import HistoryScorer
from marquee_core.scorers.hyperparameters import DropoutRate, NonNegativeFloat, Search
from marquee_core.scorers.item_weights import ItemWeights, ItemWeightsConfig
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData

_PRECISIONS, _TAIL_PRECISIONS = "precisions.npy", "tail_precisions.npy"


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
        regularisation: c in λ = c √n̄, where n̄ is the mean number of likes per item. λ scales like
            the standard deviation of a count, its square root.
        max_items: See `ItemWeightsConfig`. The weights of m items take 4 m² bytes when serving
            and three times as much while fitting: 100 MB and 300 MB for 5,000 items.
        tail_sources: See `ItemWeightsConfig`.
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
    tail_sources: int = 64
    dropout: DropoutRate = 0.0
    activity_damping: NonNegativeFloat = 0.0


class EASEScorer:
    """Scores x·B, where x is the user's history and B the learned weights; see `HistoryScorer`."""

    output = Output.AFFINITY

    def __init__(
        self,
        data: ReleaseData,
        config: EASEConfig,
        weights: ItemWeights,
        precisions: Float32,
        tail_precisions: Float32 | None = None,
    ) -> None:
        """Creates a scorer from fitted weights.

        Args:
            data: The training ratings.
            config: The configuration.
            weights: B, between m items.
            precisions: The diagonal of P, the inverse matrix that B is computed from (float32, m).
            tail_precisions: The same for the items of the tail (float32, t); None if there is no
                tail.
        """
        self.config = config
        self._weights = weights
        self._precisions = precisions
        self._tail_precisions = (
            np.empty(0, dtype=np.float32) if tail_precisions is None else tail_precisions
        )
        self._histories = HistoryScorer.of(weights, config, data)

    @property
    def weights(self) -> ItemWeights:
        """B, the weights between items."""
        return self._weights

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Loads a scorer written by `save`; the arrays are memory-mapped.

        Raises:
            ArtifactError: A file is missing or damaged.
        """
        weights = ItemWeights.load(folder, data.matrix.item_count)
        core, tail = weights.coverage
        precisions = _load_precisions(folder, _PRECISIONS, core)
        tail_precisions = _load_precisions(folder, _TAIL_PRECISIONS, tail) if tail else None
        config = load_config(folder, EASEConfig)
        return cls(data, config, weights, precisions, tail_precisions)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays to a folder."""
        save_config(folder, self.config)
        self._weights.save(folder)
        save_array(folder / _PRECISIONS, self._precisions)
        if len(self._tail_precisions):
            save_array(folder / _TAIL_PRECISIONS, self._tail_precisions)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        return self._histories.score(profiles, items)

    def score_core(self, profiles: Profiles) -> tuple[Int32, Float32]:
        """See `ScoresCore.score_core`; the core consists of the items with dense weights."""
        return self._weights.items, self._histories.score_core(profiles)

    def similarities(self, item: int) -> Float32:
        """Returns the partial correlation of an item with each item, given all other items.

        See `Scorer.similarities`. In the Gaussian model that EASE fits, the partial correlation is
        −P_ij / √(P_ii P_jj) = B_ij √(P_jj / P_ii), where P is the inverse matrix that B is computed
        from. Unlike B_ij = −P_ij / P_jj, it is symmetric and bounded.
        """
        weights, tail = self._weights, self._weights.tail
        row = np.zeros(weights.item_count, dtype=np.float32)
        position, in_tail = weights.positions[item], weights.tail_positions[item]
        if position >= 0:
            scale = np.sqrt(self._precisions / self._precisions[position])
            row[weights.items] = weights.weights[position] * scale
            if tail is not None and len(tail):
                from_core = tail.from_core
                part = slice(from_core.indptr[position], from_core.indptr[position + 1])
                others = from_core.indices[part]
                scale = np.sqrt(self._tail_precisions[others] / self._precisions[position])
                row[tail.items[others]] = from_core.data[part] * scale
        elif in_tail >= 0 and tail is not None:
            part = tail.row(int(in_tail))
            sources = tail.sources[part]
            scale = np.sqrt(self._tail_precisions[in_tail] / self._precisions[sources])
            row[weights.items[sources]] = tail.forward[part] * scale
        np.clip(row, -1.0, 1.0, out=row)
        row[item] = 1.0
        return row

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`; the contributions are x_j B_ji."""
        return [
            self._histories.evidence(profile, item, self.similarities(item), count)
            for item in items.tolist()
        ]


def _load_precisions(folder: Path, name: str, count: int) -> Float32:
    precisions = load_array(folder / name, np.float32, (count,))
    if not ((precisions > 0) & np.isfinite(precisions)).all():
        raise ArtifactError(f"{name}: a value is not finite and positive")
    return precisions
