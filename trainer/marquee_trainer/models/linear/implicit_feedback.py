"""Models of likes, whose configuration is chosen anew for each set of ratings.

Which ratings count as likes, and how much regularisation is best, depends on what is to be ranked:
what was liked last is not like what was liked at any time. These models are quick to fit, so they
are tried on the validation ratings, as others choose their epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import ClassVar

import numpy as np

from marquee_core.arrays import Int32
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, ranking_metrics
from marquee_trainer.models.closed_form import ClosedFormModel, ConfigT, ScorerT
from marquee_trainer.models.model import Fit, Training, score_known

# As good as all to tell configurations apart.
_MOST_USERS = 4_000


def most_liked(matrix: RatingsMatrix, minimum_stars: float, most: int) -> Int32:
    """The items with the most likes, at most `most`, ascending (int32, m).

    Args:
        matrix: The training ratings.
        minimum_stars: A rating of at least so many stars is a like.
        most: How many items are wanted.
    """
    liked = matrix.items[matrix.ratings >= minimum_stars]
    counts = np.bincount(liked, minlength=matrix.item_count)
    return np.sort(np.argsort(-counts, kind="stable")[:most]).astype(np.int32)


class ImplicitFeedbackModel(ClosedFormModel[ConfigT, ScorerT]):
    """A model of order that is learned in one pass.

    Attributes:
        values: The values that are tried first; those of a group exclude each other.
        multiples: Of each parameter that is varied then, by what its value is multiplied in turn.
    """

    values: ClassVar[tuple[tuple[Mapping[str, float], ...], ...]]
    multiples: ClassVar[tuple[tuple[str, tuple[float, ...]], ...]]

    @classmethod
    def chosen(cls) -> tuple[str, ...]:
        """The parameters that validation ratings choose."""
        names = [name for group in cls.values for values in group for name in values]
        return tuple(dict.fromkeys([*names, *(name for name, _ in cls.multiples)]))

    def fit(self, training: Training) -> Fit:
        """As `Model.fit`; validation ratings choose the configuration, by NDCG@10.

        One group of values after another is tried, then one parameter after another is varied,
        each from the best of those before. Without validation ratings, or relevant ones among
        them, the configuration stays as it is.
        """
        task = None
        if training.validation is not None:
            task = RankingTask.of(
                training.data.matrix, training.validation, training.relevant_stars
            ).sample(_MOST_USERS, training.seed)
        self._scorer = self.learn(training.data)
        if task is not None and len(task.users):
            self._choose(training.data, task)
        return Fit()

    def _choose(self, data: ReleaseData, task: RankingTask) -> None:
        """Takes the best configuration of those tried, the first of equals, and its scorer."""

        def ndcg(scorer: ScorerT) -> float:
            return ranking_metrics(task, score_known(scorer, data), TOP).ndcg

        reached = {self._config: ndcg(self.scorer)}
        for step in self._steps():
            start = self._config
            for change in step:
                config = replace(start, **change)
                if config in reached:
                    continue
                scorer = type(self)(config).learn(data)
                reached[config] = ndcg(scorer)
                if reached[config] > reached[self._config]:
                    self._config, self._scorer = config, scorer

    def _steps(self) -> list[Sequence[Mapping[str, float]]]:
        """What is changed in turn."""
        present = asdict(self._config)
        multiplied = [
            [{name: present[name] * multiple} for multiple in multiples]
            for name, multiples in self.multiples
        ]
        return [*self.values, *multiplied]
