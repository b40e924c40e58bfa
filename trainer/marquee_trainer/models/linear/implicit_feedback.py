"""Rankers for implicit feedback that choose hyperparameters on validation ratings.

The best definition of a like and the best regularisation depend on the data and on the split,
because the items that users like next differ from those that they liked at any time. The models
here are fast to fit, so each fit compares several configurations on the validation ratings, just as
the neural models choose their number of epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.scorer import ReleaseData, Scorer
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, mean_ndcg
from marquee_trainer.models.cf_model import OnePassModel, ScorerT_co
from marquee_trainer.models.model import ConfigT_co, Fit, Training, score_known

# Number of validation users on which configurations are compared; more would not change the choice.
_MAX_USERS = 4_000
# Hyperparameters that are thresholds on ratings, in stars.
_IN_STARS = ("minimum_stars",)

# The weights of dislikes in scoring to choose from. On MovieLens 100K, half of the smaller one is
# too little: a disliked item leaves the list, and a similar item may take its position.
DISLIKE_WEIGHTS: tuple[Mapping[str, float], ...] = (
    {"dislike_weight": 1.0},
    {"dislike_weight": 1.5},
)


def most_liked(matrix: RatingsMatrix, minimum_stars: float, max_items: int) -> Int32:
    """Selects the items with the most likes.

    Args:
        matrix: The training ratings.
        minimum_stars: The lowest rating that counts as a like, in stars.
        max_items: The maximum number of items to select.

    Returns:
        The item indexes, ascending (int32, m).
    """
    liked = matrix.items[matrix.ratings >= minimum_stars]
    counts = np.bincount(liked, minlength=matrix.item_count)
    return np.sort(np.argsort(-counts, kind="stable")[:max_items]).astype(np.int32)


def tail_items(matrix: RatingsMatrix, core: Int32, values: Float32) -> Int32:
    """Selects the items outside the core that have a like, ascending (int32, t).

    Args:
        matrix: The training ratings.
        core: The items of the core (int32, m).
        values: The value of each rating; a positive one is a like (float32, ratings).
    """
    liked = np.zeros(matrix.item_count, dtype=np.bool_)
    liked[matrix.items[values > 0]] = True
    liked[core] = False
    return np.flatnonzero(liked).astype(np.int32)


def _on_scale(
    parameters: Mapping[str, float], from_stars: Callable[[float], float]
) -> dict[str, float]:
    """Converts the hyperparameters that are in stars to the scale of the ratings."""
    return {name: from_stars(parameters[name]) for name in _IN_STARS if name in parameters}


class ImplicitFeedbackModel(OnePassModel[ConfigT_co, ScorerT_co]):
    """A ranker that chooses some of its hyperparameters by NDCG@10 on the validation ratings.

    The hyperparameters in `alternatives` and `multipliers` are chosen, for example which ratings
    count as likes. A fit without validation ratings keeps the configuration.

    Attributes:
        alternatives: Groups of alternative settings of one or several hyperparameters. The groups
            are tried one after another, each from the best configuration so far.
        multipliers: Hyperparameters to vary after that, one after another, with the factors by
            which the configured value is multiplied.
    """

    output = Output.AFFINITY
    alternatives: ClassVar[tuple[tuple[Mapping[str, float], ...], ...]]
    multipliers: ClassVar[tuple[tuple[str, tuple[float, ...]], ...]]

    @classmethod
    def validated_hyperparameters(cls) -> tuple[str, ...]:
        """The names of the hyperparameters that are chosen on validation ratings."""
        names = [name for group in cls.alternatives for setting in group for name in setting]
        return tuple(dict.fromkeys([*names, *(name for name, _ in cls.multipliers)]))

    def fit(self, training: Training) -> Fit:
        """See `Model.fit`.

        The configuration is kept if there are no validation ratings, or none of them is relevant.
        Thresholds in stars are converted to the scale of the ratings.
        """
        from_stars = training.from_stars
        if from_stars is not None:
            changes = _on_scale(asdict(self._config), from_stars)
            if math.isinf(training.data.dislike_limit) and hasattr(self._config, "indifference"):
                # Every interaction is a like; a lower value means that there was none.
                changes["indifference"] = 0.0
            self._config = replace(self._config, **changes)
        task = None
        if training.validation is not None:
            task = RankingTask.of(
                training.data.matrix, training.validation, training.relevant_stars
            ).sample(_MAX_USERS, training.seed)
        if task is None or not len(task.users):
            self._scorer = self.learn(training.data)
            return Fit()
        self._choose(training.data, task, from_stars or float)
        return Fit()

    def learn_to_compare(self, data: ReleaseData) -> ScorerT_co:
        """Computes the scorer for comparing configurations; by default the one of `learn`.

        A model that is slow to fit can omit parts that do not affect the comparison.
        """
        return self.learn(data)

    def _choose(
        self, data: ReleaseData, task: RankingTask, from_stars: Callable[[float], float]
    ) -> None:
        """Sets the configuration to the best one tried, the first of equals, with its scorer.

        Args:
            data: The training ratings.
            task: The validation users and their relevant items.
            from_stars: Converts a threshold in stars to the scale of the ratings.
        """

        def ndcg(scorer: Scorer) -> float:
            return mean_ndcg(task, score_known(scorer, data), TOP)

        self._scorer = self.learn_to_compare(data)
        reached = {self._config: ndcg(self.scorer)}
        for step in self._steps():
            start = self._config
            for change in step:
                config = replace(start, **{**change, **_on_scale(change, from_stars)})
                if config in reached:
                    continue
                scorer = type(self)(config).learn_to_compare(data)
                reached[config] = ndcg(scorer)
                if reached[config] > reached[self._config]:
                    self._config, self._scorer = config, scorer
        if not self.is_complete(data):
            self._scorer = self.learn(data)

    def is_complete(self, data: ReleaseData) -> bool:  # noqa: ARG002 - overridden
        """Whether `learn_to_compare` computes everything that `learn` does."""
        return True

    def _steps(self) -> list[Sequence[Mapping[str, float]]]:
        """The alternative settings to try in each step."""
        configured = asdict(self._config)
        multiplied = [
            [{name: configured[name] * multiplier} for multiplier in multipliers]
            for name, multipliers in self.multipliers
        ]
        return [*self.alternatives, *multiplied]
