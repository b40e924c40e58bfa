"""The floor that every model is measured against, and that answers when nothing else does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

import numpy as np

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.release.ensemble import BASELINE, POPULARITY, RECENT_POPULARITY
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.popularity import popularity_scores
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.models.model import Fit, Model, Training

_SCORES = "scores.npy"


@dataclass(frozen=True)
class BaselineScorer:
    """Scores with the bias baseline."""

    baseline: Baseline
    output = Output.STARS

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        return self.baseline.score(profiles, items)

    def similarities(self, item: int) -> Float32 | None:  # noqa: ARG002 - the protocol's
        """None: biases represent no items."""
        return None


@dataclass(frozen=True)
class PopularityScorer:
    """Scores every user's items alike, by how often they are rated (float32, items)."""

    scores: Float32
    output = Output.AFFINITY

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        row = self.scores if items is None else self.scores[items]
        return np.broadcast_to(row, (len(profiles), len(row)))

    def similarities(self, item: int) -> Float32 | None:  # noqa: ARG002 - the protocol's
        """None: popularity represents no items."""
        return None


ScorerT = TypeVar("ScorerT", bound=Scorer)


class BaselineModel(Model, Generic[ScorerT]):
    """A model that the gateway itself scores; it has no epochs and no configuration."""

    backend = "gateway"

    def __init__(self) -> None:
        self._scorer: ScorerT | None = None

    def with_epochs(self, epochs: int) -> Self:  # noqa: ARG002 - there are none
        """As `Model.with_epochs`."""
        return type(self)()

    @property
    def scorer(self) -> ScorerT:
        """As `Model.scorer`."""
        if self._scorer is None:
            raise RuntimeError(f"{self.name} is not fitted")
        return self._scorer

    @property
    def parameters(self) -> dict[str, object]:
        """As `Model.parameters`: none."""
        return {}


class BiasBaseline(BaselineModel[BaselineScorer]):
    """μ + b_u + b_i, as fitted with the training data."""

    name = BASELINE

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; the baseline comes with the data."""
        self._scorer = BaselineScorer(training.data.baseline)
        return Fit()

    def save(self, folder: Path) -> None:
        """As `Model.save`."""
        self.scorer.baseline.save(folder)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """As `Model.load`."""
        model = cls()
        model._scorer = BaselineScorer(Baseline.load(folder, data.matrix.item_count))
        return model


class PopularityModel(BaselineModel[PopularityScorer]):
    """The same order for everybody, by counts of ratings."""

    def save(self, folder: Path) -> None:
        """As `Model.save`."""
        save_array(folder / _SCORES, self.scorer.scores)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """As `Model.load`."""
        model = cls()
        scores = load_array(folder / _SCORES, np.float32, (data.matrix.item_count,))
        model._scorer = PopularityScorer(scores)
        return model


class MostPopular(PopularityModel):
    """Most rated first."""

    name = POPULARITY

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`."""
        self._scorer = PopularityScorer(popularity_scores(training.data.matrix.item_counts))
        return Fit()


class RecentlyPopular(PopularityModel):
    """Most rated of late first."""

    name = RECENT_POPULARITY

    def __init__(self) -> None:
        super().__init__()
        self._half_life_days = float("nan")

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; the counts come with the data.

        Raises:
            ValueError: They do not.
        """
        recency = training.data.recency
        if recency is None:
            raise ValueError("the data does not tell what was rated of late")
        self._scorer = PopularityScorer(popularity_scores(recency.counts))
        self._half_life_days = recency.half_life_days
        return Fit()

    @property
    def parameters(self) -> dict[str, object]:
        """As `Model.parameters`."""
        return {"half_life_days": self._half_life_days}


def fitted_baselines(data: ReleaseData) -> tuple[Model, ...]:
    """The bias baseline and most-popular, of all times and, where the data tells, of late."""
    floor: tuple[Model, ...] = (BiasBaseline(), MostPopular())
    if data.recency is not None:
        floor += (RecentlyPopular(),)
    for model in floor:
        model.fit(Training(data))
    return floor
