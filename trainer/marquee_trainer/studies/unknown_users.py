"""What items alone tell of the stars of users unknown in training, and what they could at most.

Where most of a test is of such users, as it is in tests by time, no model can gain more than the
items admit: a ridge regression of what is known of them shows how much that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.training.train import (
    TrainingConfig,
    interactions_of,
    release_data,
    validation_split,
)

# Ratings of unknown users that are enough for a regression.
_LEAST_RATINGS = 1_000
# Ratings at which an item's mean counts half: how far to trust few ratings is left to the weights.
_DAMPINGS = (2.0, 5.0, 15.0, 50.0)
# An item of fewer ratings is described by its year and genres besides.
_FEW = 5
# L2 penalty of the weights' departure from the baseline's, in squared columns.
_PENALTY = 100.0
# Years are counted from here, in decades.
_MIDDLE_YEAR, _DECADE = 1990.0, 10.0
KNOWN_OF_ITEMS = ("means", "means and counts", "means, counts and years", "all that and genres")


@dataclass(frozen=True)
class ItemsAlone:
    """RMSE of the test ratings of users without a training rating, in stars.

    Attributes:
        ratings: How many there are.
        baseline: Of the bias baseline.
        honest: By what is known of items, of weights fitted to validation ratings of such users.
        bound: Likewise, of weights fitted to the test itself by least squares, which no honest
            model may see.
    """

    ratings: int
    baseline: float
    honest: dict[str, float]
    bound: dict[str, float]


def items_alone(
    dataset: RatingsDataset, split: Split, data: ReleaseData, config: TrainingConfig
) -> ItemsAlone | None:
    """Fits regressions on what is known of items, and tests them.

    Args:
        dataset: The ratings.
        split: Training and test part.
        data: The training part's matrix and baseline.
        config: How the validation part is cut, and the baseline.

    Returns:
        How far they come; None where the test or the validation part has fewer than 1,000 ratings
        of users that its training part does not know.
    """
    inner = validation_split(dataset, split, config)
    part = release_data(dataset, inner.train, config.baseline)
    validation = _of_unknown(part, interactions_of(dataset, inner.test))
    test = _of_unknown(data, interactions_of(dataset, split.test))
    if min(len(validation), len(test)) < _LEAST_RATINGS:
        return None

    def rmse(predictions: Float64) -> float:
        return rating_metrics(predictions, test.ratings, dataset.scale).rmse

    learned_blocks = _blocks(dataset, part, validation.items)
    asked_blocks = _blocks(dataset, data, test.items)
    honest, bound = {}, {}
    for known, name in enumerate(KNOWN_OF_ITEMS, start=2):
        learned, asked = np.hstack(learned_blocks[:known]), np.hstack(asked_blocks[:known])
        weights = _ridge(learned, validation.ratings - part.baseline.mean)
        honest[name] = rmse(data.baseline.mean + asked @ weights)
        weights, *_ = np.linalg.lstsq(asked, test.ratings - data.baseline.mean)
        bound[name] = rmse(data.baseline.mean + asked @ weights)
    floor = data.baseline.mean + data.baseline.item_bias[test.items].astype(np.float64)
    return ItemsAlone(len(test), rmse(floor), honest, bound)


def _of_unknown(data: ReleaseData, pairs: Interactions) -> Interactions:
    """The ratings of users whom training does not know."""
    kept = np.diff(data.matrix.indptr)[pairs.users] == 0
    return Interactions(pairs.users[kept], pairs.items[kept], pairs.ratings[kept])


def _blocks(dataset: RatingsDataset, data: ReleaseData, items: Int32) -> list[Float64]:
    """The baseline's item bias and a constant; then what each of `KNOWN_OF_ITEMS` adds.

    Args:
        dataset: Holds years and genres.
        data: The training ratings that means and counts are of.
        items: The items (int32, n).

    Returns:
        Blocks of columns (float64, n × columns each).
    """
    counts = data.matrix.item_counts.astype(np.float64)
    departures = data.matrix.ratings.astype(np.float64) - data.baseline.mean
    totals = np.bincount(data.matrix.items, departures, minlength=len(counts))
    years = np.asarray(dataset.catalogue.years, dtype=np.float64)
    decades = np.where(years > 0, (years - _MIDDLE_YEAR) / _DECADE, 0.0)
    bits = np.asarray(dataset.catalogue.genre_bits, dtype=np.int64)
    genres = (bits >> np.arange(len(dataset.catalogue.genres))[:, None] & 1).astype(np.float64)
    rare = (counts < _FEW).astype(np.float64)
    blocks: tuple[Sequence[Float64], ...] = (
        [data.baseline.item_bias.astype(np.float64), np.ones(len(counts))],
        [totals / (counts + damping) for damping in _DAMPINGS],
        [np.log1p(counts), np.log1p(counts) ** 2, (counts == 0).astype(np.float64)],
        [decades, np.maximum(decades, 0.0), rare * decades],
        [*genres, *(rare * genres)],
    )
    # Of a catalogue without genres the last is empty.
    return [np.reshape(block, (-1, len(counts))).T[items] for block in blocks]


def _ridge(columns: Float64, wanted: Float32 | Float64) -> Float64:
    """Weights near 1 for the first column, near 0 for the others, and free for the constant."""
    start = np.zeros(columns.shape[1])
    start[0] = 1.0
    penalties = np.full(columns.shape[1], _PENALTY)
    penalties[1] = 0.0
    normal = columns.T @ columns + np.diag(penalties)
    found: Float64 = start + np.linalg.solve(normal, columns.T @ (wanted - columns @ start))
    return found
