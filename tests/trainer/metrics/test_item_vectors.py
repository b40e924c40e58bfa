"""Item vectors: unit length, and close where items are rated by the same people."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Bool
from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.metrics.item_vectors import item_vectors


def data_of(rated: Bool) -> ReleaseData:
    """A release's data, from which user rated which item (bool, users × items)."""
    users, items = np.nonzero(rated)
    stars = np.full(len(users), 4, dtype=np.float32)
    matrix = RatingsMatrix.of(users.astype(np.int32), items.astype(np.int32), stars, *rated.shape)
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 2))


def test_items_of_the_same_audience_are_close_and_of_others_apart() -> None:
    """Two audiences that share nothing give two directions; unrated items have none."""
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
def test_vectors_are_of_unit_length_and_the_same_each_time(shape: tuple[int, int]) -> None:
    """Products are cosines, and a release can be built again."""
    rated = np.random.default_rng(0).random(shape) < 0.3
    rated[0] = True
    rated[:, -1] = False
    vectors = item_vectors(data_of(rated))
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(lengths[:-1], 1, atol=1e-5)
    assert lengths[-1] == 0
    np.testing.assert_array_equal(vectors, item_vectors(data_of(rated)))


def test_one_item_has_no_direction() -> None:
    """Data too small for a decomposition give zeros, not an error."""
    assert not item_vectors(data_of(np.ones((3, 1), dtype=np.bool_))).any()
