"""The most-popular model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from marquee_services.scoring.popularity import popularity_scores


def test_scores_are_the_logarithm_of_the_counts() -> None:
    """log(1 + n), so that an item without ratings has 0."""
    scores = popularity_scores(np.array([0, 1, 9, 99]))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.log([1, 2, 10, 100]), rtol=1e-6)


def test_more_ratings_are_more_popular() -> None:
    """The order of the scores is the order of the counts."""
    counts = np.random.default_rng(0).permutation(1000)
    assert np.argsort(popularity_scores(counts)).tolist() == np.argsort(counts).tolist()


def test_the_last_resort_needs_numpy_alone() -> None:
    """The gateway scores popularity itself, where SciPy and TensorFlow are not installed."""
    program = (
        "import sys, marquee_services.scoring.popularity\n"
        "sys.exit(any(name in sys.modules for name in ('scipy', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
