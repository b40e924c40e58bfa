"""Item features for predicting the ratings of users without training ratings.

For such a user, predictions can only depend on the item: on its training ratings, its year and its
genres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee_core.arrays import Float64, Int32
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset

# The sets of features that are compared, each an extension of the one before.
FEATURE_SETS = (
    "means",
    "means and counts",
    "means, counts and years",
    "means, counts, years and genres",
)

# Number of ratings at which an item's mean is shrunk by half. There are several, so that the
# regression decides how much to trust the mean of a few ratings.
_DAMPINGS = (2.0, 5.0, 15.0, 50.0)
# Items with fewer ratings get additional features for their year and genres.
_RARE_BELOW = 5
# Years are expressed in decades since the reference year.
_REFERENCE_YEAR, _DECADE = 1990.0, 10.0


def item_features(dataset: RatingsDataset, data: ReleaseData, items: Int32) -> list[Float64]:
    """Computes the features of items: one matrix for each of `FEATURE_SETS`.

    The first two columns of each matrix are the baseline's item bias and the constant 1.

    Args:
        dataset: The data set, for the items' years and genres.
        data: The training ratings from which means and counts are computed, and their baseline.
        items: Item indexes (int32, n).

    Returns:
        Matrices of features (float64, n × features each), in the order of `FEATURE_SETS`.
    """
    counts = data.matrix.item_counts.astype(np.float64)
    differences = data.matrix.ratings.astype(np.float64) - data.baseline.mean
    totals = np.bincount(data.matrix.items, differences, minlength=len(counts))
    years = np.asarray(dataset.catalogue.years, dtype=np.float64)
    decades = np.where(years > 0, (years - _REFERENCE_YEAR) / _DECADE, 0.0)
    genres = dataset.catalogue.genre_matrix().T.astype(np.float64)
    rare = (counts < _RARE_BELOW).astype(np.float64)
    baseline: Sequence[Float64] = [data.baseline.item_bias.astype(np.float64), np.ones(len(counts))]
    additions: tuple[Sequence[Float64], ...] = (
        [totals / (counts + damping) for damping in _DAMPINGS],
        [np.log1p(counts), np.log1p(counts) ** 2, (counts == 0).astype(np.float64)],
        [decades, np.maximum(decades, 0.0), rare * decades],
        [*genres, *(rare * genres)],
    )
    # A catalogue without genres has an empty last block.
    blocks = [np.reshape(block, (-1, len(counts))).T[items] for block in (baseline, *additions)]
    return [np.hstack(blocks[: last + 1]) for last in range(1, len(blocks))]
