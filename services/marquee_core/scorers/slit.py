"""SLIT: a linear model of which items come next (Choi, Kim, Lee, Shim and Lee, 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.config import load_config, save_config
from marquee_core.scorers.item_weights import ItemWeights, ItemWeightsConfig
from marquee_core.scorers.scorer import ReleaseData


@dataclass(frozen=True)
class SLITConfig(ItemWeightsConfig):
    """SLIT.

    Attributes:
        minimum_stars: As `ItemWeightsConfig`, as are the two after it; only what is liked is to
            come next.
        indifference: Of what else is in a history.
        history_decay: Of a history, when it is learned from and when it is asked about.
        regularisation: c in λ = c ḡ, where ḡ is the mean of the Gram matrix's diagonal.
        target_decay: t; what comes n ratings after the next counts (1 + n)^−t.
        moments: Of each user, the most moments that are learned from, evenly spaced from the first
            to the last that others follow.
        max_items: The most liked items that the dense weights cover. They take 4 m² bytes to
            serve and six times that to fit: 100 MB and 600 MB for 5,000 items.
    """

    minimum_stars: float = 3.0
    indifference: float = 0.3
    history_decay: float = 0.5
    regularisation: float = 4.0
    max_items: int = 5_000
    target_decay: float = 0.5
    moments: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_negative("target_decay")
        if self.moments < 2:
            raise ValueError(f"moments: {self.moments} is below 2")


class SLITScorer:
    """Scores x·B: x is how much what a user rated counts, and B the learned transitions."""

    output = Output.AFFINITY

    def __init__(self, config: SLITConfig, weights: ItemWeights) -> None:
        """Takes what was learned."""
        self.config = config
        self._weights = weights

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """Maps what `save` wrote.

        Raises:
            ArtifactError: A file is not what it should be.
        """
        weights = ItemWeights.load(folder, data.matrix.item_count)
        return cls(load_config(folder, SLITConfig), weights)

    def save(self, folder: Path) -> None:
        """Writes the configuration and the arrays to a folder."""
        save_config(folder, self.config)
        self._weights.save(folder)

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        scores = self._weights.score(profiles, self.config)
        return scores if items is None else scores[:, items]

    def similarities(self, item: int) -> Float32 | None:  # noqa: ARG002 - transitions are no likeness
        """None: what comes after an item is not what is like it."""
        return None
