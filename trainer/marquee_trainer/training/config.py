"""The configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.ensemble.blends import BlendConfig
from marquee_trainer.training.recency import RecencyConfig
from marquee_trainer.training.relevance import STARS, relevant_rating


@dataclass(frozen=True)
class BaselineConfig:
    """Regularisation of the bias baseline μ + b_u + b_i; see `Baseline.fit` for the formula.

    Attributes:
        user_damping: λ_u, which shrinks user biases, in ratings.
        item_damping: λ_i, which shrinks item biases, in ratings.
        sweeps: Number of alternating updates of the user and the item biases.
    """

    user_damping: float = 5.0
    item_damping: float = 5.0
    sweeps: int = 10


@dataclass(frozen=True)
class TrainingConfig:
    """How models are trained, blended and evaluated.

    Attributes:
        seed: Seed for all randomness.
        validation_fraction: Share of the training ratings held out for validation, 0 to 1. They
            determine the number of epochs, the blends and the hyperparameters of implicit-feedback
            models.
        latest_validation_fraction: The same share for a temporal or user-last split, whose
            validation ratings are the latest ones. It is larger because the latest ratings come
            from fewer users.
        relevant_stars: An item is relevant to a user who rated it with at least this many stars;
            `for_dataset` derives it from the rating scale.
        baseline: Regularisation of the bias baseline.
        recency: How the half-life of recent popularity is chosen.
        blend: How the ensemble's blends are learned.
    """

    seed: int = 0
    validation_fraction: float = 0.1
    latest_validation_fraction: float = 0.2
    relevant_stars: float = STARS
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    recency: RecencyConfig = field(default_factory=RecencyConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)

    @classmethod
    def for_dataset(cls, dataset: RatingsDataset, seed: int = 0) -> Self:
        """The default configuration, with the relevance threshold of a data set's scale.

        Args:
            dataset: The ratings; see `relevant_rating`.
            seed: Seed for all randomness.
        """
        return cls(seed=seed, relevant_stars=relevant_rating(dataset))

    def validation_share(self, kind: str) -> float:
        """The share of the training ratings held out for validation, 0 to 1.

        Args:
            kind: How the data set was split into training and test ratings; see `Split.kind`.
        """
        is_latest = kind in ("temporal", "user-last")
        return self.latest_validation_fraction if is_latest else self.validation_fraction
