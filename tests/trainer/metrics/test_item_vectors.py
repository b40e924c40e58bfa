"""Item vectors have unit length, and are close for items with a similar audience."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Bool
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.metrics.item_vectors import item_vectors
from toy.ratings import release_data


def data_of(rated: Bool) -> ReleaseData:
    """Return release data in which every rating is 4 stars (rated: bool, users × items)."""
    return release_data(np.where(rated, 4, 0), sweeps=2)


def test_items_with_the_same_audience_have_the_same_vector() -> None:
    """Items of two disjoint audiences are orthogonal, and unrated items have zero vectors."""
    rated = np.zeros((60, 23), dtype=np.bool_)
    rated[:30, :10] = True
    rated[30:, 10:20] = True
    similar = item_vectors(data_of(rated))
    products = similar @ similar.T
    np.testing.assert_allclose(products[:10, :10], 1, atol=1e-5)
    np.testing.assert_allclose(products[10:20, 10:20], 1, atol=1e-5)
    np.testing.assert_allclose(products[:10, 10:20], 0, atol=1e-5)
    assert not similar[20:].any()


@pytest.mark.parametrize("shape", [(200, 60), (60, 200), (5, 4)])
def test_vectors_have_unit_length_and_are_reproducible(shape: tuple[int, int]) -> None:
    """Products are therefore cosines, and the same data gives the same release."""
    rated = np.random.default_rng(0).random(shape) < 0.3
    rated[0] = True
    rated[:, -1] = False
    vectors = item_vectors(data_of(rated))
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths[:-1], 1, atol=1e-5)
    assert lengths[-1] == 0
    np.testing.assert_array_equal(vectors, item_vectors(data_of(rated)))


def test_a_single_item_has_a_zero_vector() -> None:
    """Data too small for a decomposition gives zeros rather than an error."""
    assert not item_vectors(data_of(np.ones((3, 1), dtype=np.bool_))).any()
