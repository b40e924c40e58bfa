"""SLIT: a sequential linear ranker, which predicts a user's next items.

SLIT is one of the session-aware linear item models of Choi, Kim, Lee, Shim and Lee (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.history_scorer import HistoryScorer
from marquee_core.scorers.hyperparameters import Interval, NonNegativeFloat, Search
from marquee_core.scorers.item_weights import ItemWeights, ItemWeightsConfig
from marquee_core.scorers.scorer import RatedEvidence, ReleaseData


@dataclass(frozen=True)
class SLITConfig(ItemWeightsConfig):
    """The hyperparameters of SLIT.

    Attributes:
        minimum_stars: See `ItemWeightsConfig`. Only likes are prediction targets.
        indifference: See `ItemWeightsConfig`; it applies to histories.
        dislike_weight: See `ItemWeightsConfig`.
        dislike_decay: See `ItemWeightsConfig`.
        fitted_dislike: See `ItemWeightsConfig`; it applies to histories.
        history_decay: See `ItemWeightsConfig`; it applies to fitting and to scoring.
        regularisation: c in λ = c ḡ, where ḡ is the mean diagonal element of the Gram matrix.
        max_items: See `ItemWeightsConfig`. The weights of m items take 4 m² bytes when serving
            and six times as much while fitting: 100 MB and 600 MB for 5,000 items.
        tail_sources: See `ItemWeightsConfig`. Ratings of items of the tail are ignored.
        target_decay: t; a target has the weight (1 + n)^−t if n ratings lie between the moment
            and the target.
        moments: The maximum number of moments in each user's history to learn from. They are
            evenly spaced from the first moment to the last one that has later ratings.
    """

    minimum_stars: float = 3.0
    indifference: Annotated[float, Search(0.0, 1.0, log=False)] = 0.3
    dislike_weight: float = 1.0
    dislike_decay: float = 1.0
    fitted_dislike: float = 0.0
    history_decay: Annotated[float, Search(0.1, 1.5, log=False)] = 0.5
    regularisation: Annotated[float, Search(0.5, 30.0)] = 4.0
    max_items: int = 5_000
    tail_sources: int = 64
    target_decay: Annotated[NonNegativeFloat, Search(0.0, 1.0, log=False)] = 0.5
    moments: Annotated[int, Interval(at_least=2)] = 32


class SLITScorer:
    """Scores x·B, where x is the user's history and B the learned transition weights.

    See `HistoryScorer`. It does not compare items: an item that often follows another is not
    therefore similar to it.
    """

    output = Output.AFFINITY

    def __init__(self, data: ReleaseData, config: SLITConfig, weights: ItemWeights) -> None:
        """Creates a scorer from fitted weights.

        Args:
            data: The training ratings.
            config: The configuration.
            weights: B, from the items of a history to the next items.
        """
        self.config = config
        self._weights = weights
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
        return cls(data, load_config(folder, SLITConfig), weights)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays to a folder."""
        save_config(folder, self.config)
        self._weights.save(folder)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        return self._histories.score(profiles, items)

    def score_core(self, profiles: Profiles) -> tuple[Int32, Float32]:
        """See `ScoresCore.score_core`; the core consists of the items with dense weights."""
        return self._weights.items, self._histories.score_core(profiles)

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """See `ExplainsByItems.rated_evidence`; the contributions are x_j B_ji."""
        return [self._histories.evidence(profile, item, None, count) for item in items.tolist()]
