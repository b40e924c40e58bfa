"""The baselines with which every model is compared: the bias baseline and popularity.

The gateway scores them itself, so they are available even when no backend is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np

from marquee_core.arrays import Float32, Int32, save_array
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.release.ensemble import BASELINE, POPULARITY, RECENT_POPULARITY
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.popularity import popularity_scores
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_core.service_names import GATEWAY
from marquee_trainer.models.model import Fit, Model, Training

_SCORES = "scores.npy"


@dataclass(frozen=True)
class BaselineScorer:
    """Predicts ratings with the bias baseline."""

    baseline: Baseline
    output = Output.STARS

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        return self.baseline.score(profiles, items)


@dataclass(frozen=True)
class PopularityScorer:
    """Ranks items by popularity, identically for every user.

    Attributes:
        scores: The popularity of each item (float32, items).
    """

    scores: Float32
    output = Output.AFFINITY

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """See `Scorer.score`."""
        row = self.scores if items is None else self.scores[items]
        return np.broadcast_to(row, (len(profiles), len(row)))


ScorerT = TypeVar("ScorerT", bound=Scorer)


class BaselineModel(Model, Generic[ScorerT]):
    """A model that the gateway scores itself; it has no epochs and no hyperparameters.

    Subclasses set `_scorer` in `fit`.
    """

    backend = GATEWAY

    def __init__(self) -> None:
        self._scorer: ScorerT | None = None

    def for_refit(self) -> Self:
        """See `Model.for_refit`."""
        return type(self)()

    @property
    def scorer(self) -> ScorerT:
        """See `Model.scorer`."""
        if self._scorer is None:
            raise RuntimeError(f"{self.name} is not fitted")
        return self._scorer

    @property
    def parameters(self) -> dict[str, object]:
        """See `Model.parameters`."""
        return {}


class BiasBaseline(BaselineModel[BaselineScorer]):
    """Predicts μ + b_u + b_i; the biases are part of the training data."""

    name = BASELINE

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        self._scorer = BaselineScorer(training.data.baseline)
        return Fit()

    def save(self, folder: Path) -> None:
        """See `Model.save`."""
        self.scorer.baseline.save(folder)


class PopularityModel(BaselineModel[PopularityScorer]):
    """Ranks items by their rating counts."""

    output = Output.AFFINITY

    def save(self, folder: Path) -> None:
        """See `Model.save`."""
        save_array(folder / _SCORES, self.scorer.scores)


class MostPopular(PopularityModel):
    """Ranks items by the number of their ratings."""

    name = POPULARITY

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`."""
        self._scorer = PopularityScorer(popularity_scores(training.data.matrix.item_counts))
        return Fit()


class RecentlyPopular(PopularityModel):
    """Ranks items by their recency-weighted rating counts, which are part of the training data."""

    name = RECENT_POPULARITY

    def __init__(self) -> None:
        super().__init__()
        self._half_life_days = float("nan")

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`.

        Raises:
            ValueError: The training data has no recency-weighted counts.
        """
        recency = training.data.recency
        if recency is None:
            raise ValueError("the training data has no recency-weighted rating counts")
        self._scorer = PopularityScorer(popularity_scores(recency.counts))
        self._half_life_days = recency.half_life_days
        return Fit()

    @property
    def parameters(self) -> dict[str, object]:
        """See `Model.parameters`: the half-life that the counts were weighted with."""
        return {"half_life_days": self._half_life_days}


def fitted_baselines(data: ReleaseData, rankers_only: bool = False) -> tuple[Model, ...]:
    """Fits the baselines: biases, popularity and, if the data has it, recent popularity.

    Args:
        data: The training ratings.
        rankers_only: Whether to omit the bias baseline, because implicit feedback has no ratings to
            predict.
    """
    models: tuple[Model, ...] = (
        (MostPopular(),) if rankers_only else (BiasBaseline(), MostPopular())
    )
    if data.recency is not None:
        models += (RecentlyPopular(),)
    for model in models:
        model.fit(Training(data))
    return models
