"""Popularity scores, with and without recency weighting."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from marquee_core.scorers.popularity import Recency, popularity_scores


def test_scores_are_the_logarithm_of_the_counts() -> None:
    """The score is log(1 + n), so an item without ratings scores 0."""
    scores = popularity_scores(np.array([0, 1, 9, 99]))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.log([1, 2, 10, 100]), rtol=1e-6)


def test_more_ratings_are_more_popular() -> None:
    """The scores rank items in the order of the counts."""
    counts = np.random.default_rng(0).permutation(1000)
    assert np.argsort(popularity_scores(counts)).tolist() == np.argsort(counts).tolist()


def test_the_weight_of_a_rating_halves_with_each_half_life() -> None:
    """Ages are relative to the latest rating, and without ratings all counts are 0."""
    day = 86_400
    items = np.array([0, 0, 1, 2], dtype=np.int32)
    times = np.array([100 * day, 90 * day, 80 * day, 100 * day])
    found = Recency.of(items, times, 4, half_life_days=10.0)
    assert found.counts.dtype == np.float32
    assert found.counts.tolist() == [1.5, 0.25, 1.0, 0.0]
    nothing = Recency.of(items[:0], times[:0], 4, 10.0)
    assert nothing.counts.tolist() == [0.0] * 4


def test_popularity_needs_neither_scipy_nor_tensorflow() -> None:
    """The gateway scores popularity itself, without SciPy and TensorFlow."""
    program = (
        "import sys, marquee_core.scorers.popularity\n"
        "sys.exit(any(name in sys.modules for name in ('scipy', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
