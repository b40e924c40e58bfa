"""Prepares the inputs of fitting and evaluation: validation split, matrices and baselines."""

from __future__ import annotations

import math

import numpy as np

from marquee_core.arrays import Int64
from marquee_core.ratings import dislike_limit
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.scale import Feedback
from marquee_trainer.data.split import Split, split_by
from marquee_trainer.training.config import BaselineConfig, TrainingConfig
from marquee_trainer.training.recency import recency_of

# Fewer ratings cannot be split into meaningful parts.
MIN_RATINGS = 20


def check_sizes(dataset: RatingsDataset, split: Split, inner: Split) -> None:
    """Checks that there are ratings for fitting, validation and testing.

    Args:
        dataset: The ratings.
        split: The training and test rows of the data set.
        inner: The split of the training rows into fitting and validation rows.

    Raises:
        RatingsError: There are too few ratings, users or items, or a part is empty.
    """
    count = len(split.train) + len(split.test)
    if count < MIN_RATINGS:
        raise RatingsError(
            f"{dataset.source}: {count} ratings are too few to train and evaluate models; at least "
            f"{MIN_RATINGS} are needed"
        )
    for rows, purpose in (
        (inner.train, "fit models on"),
        (inner.test, "choose hyperparameters and blends on"),
        (split.test, "test models on"),
    ):
        if not len(rows):
            raise RatingsError(
                f"{dataset.source}: the split ({split.description}) leaves no ratings to "
                f"{purpose}; use another --split or --test-fraction"
            )
    users, items = dataset.users[inner.train], dataset.items[inner.train]
    for name, used in (("user", users), ("item", items)):
        if len(np.unique(used)) == 1:
            raise RatingsError(
                f"{dataset.source}: all ratings to fit models on are of one {name}, so there is "
                "nothing to learn from"
            )


def validation_split(dataset: RatingsDataset, split: Split, config: TrainingConfig) -> Split:
    """Splits the training ratings into a training part and a validation part.

    The validation part is chosen in the same way as the test part, for example by time for a
    temporal split, so that selections on it carry over to the test.

    Args:
        dataset: The ratings.
        split: The training and test rows of the data set.
        config: The share of the validation part, and the seed.

    Returns:
        A split whose `train` and `test` together are `split.train`; `test` is the validation part.
    """
    share = config.validation_share(split.kind)
    return split_by(split.kind, dataset, split.train, share, config.seed)


def interactions_of(dataset: RatingsDataset, rows: Int64) -> Interactions:
    """The ratings in the given rows of a data set.

    Args:
        dataset: The ratings.
        rows: Row indexes (int64, n).
    """
    return Interactions(dataset.users[rows], dataset.items[rows], dataset.ratings[rows])


def all_rows(split: Split) -> Int64:
    """The rows of both parts of a split, ascending (int64, n)."""
    rows: Int64 = np.union1d(split.train, split.test)
    return rows


def release_data(
    dataset: RatingsDataset,
    rows: Int64,
    config: BaselineConfig,
    half_life_days: float | None = None,
) -> ReleaseData:
    """Builds the ratings matrix of the given rows, and fits the bias baseline on it.

    Args:
        dataset: The ratings.
        rows: The rows of the data set to include (int64, n).
        config: Regularisation of the baseline.
        half_life_days: Half-life of recent popularity, in days; None to omit recent popularity.
    """
    matrix = dataset.matrix(rows)
    baseline = Baseline.fit(matrix, config.user_damping, config.item_damping, config.sweeps)
    recency = None if half_life_days is None else recency_of(dataset, rows, half_life_days)
    limit = -math.inf
    if dataset.feedback is Feedback.EXPLICIT:
        limit = dislike_limit(dataset.scale.low, dataset.scale.high)
    return ReleaseData(matrix, baseline, recency, limit)
