"""The sums of an item's audience, and their gradient."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Bool, Float32
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.neural.audience import Audiences
from toy.ratings import ratings_matrix

USERS, ITEMS, FACTORS = 12, 9, 5


@pytest.fixture(scope="module")
def matrix() -> RatingsMatrix:
    """Random ratings; the first item and the last user have none."""
    random = np.random.default_rng(3)
    rated = random.random((USERS, ITEMS)) < 0.5
    rated[-1], rated[:, 0] = False, False
    return ratings_matrix(np.where(rated, random.integers(1, 6, rated.shape), 0))


def dense(matrix: RatingsMatrix, kept: Bool, weight: float) -> Float32:
    """Return the sums as a matrix to multiply embeddings with (items × users)."""
    order = np.argsort(matrix.items, kind="stable")
    items, users = matrix.items[order][kept], matrix.users[order][kept]
    factors = np.zeros((ITEMS, USERS), dtype=np.float32)
    factors[items, users] = weight / np.sqrt(matrix.item_counts[items] + 2.0)
    return factors


@pytest.mark.parametrize("dropout", [0.0, 0.6, 1.0])
def test_sums_and_gradients_are_those_of_a_matrix_product(
    matrix: RatingsMatrix, dropout: float
) -> None:
    """For every share of the ratings that is left out, also for a second part."""
    random = np.random.default_rng(1)
    embeddings = random.normal(size=(USERS, FACTORS)).astype(np.float32)
    by_item = random.normal(size=(ITEMS, FACTORS)).astype(np.float32)
    audiences = Audiences(matrix, damping=2.0)
    for _ in range(2):
        numbers = random.random(matrix.rating_count, dtype=np.float32)
        part = audiences.part(numbers, dropout)
        factors = dense(matrix, numbers >= dropout, 1.5)
        sums = audiences.sums(embeddings, part, 1.5)
        np.testing.assert_allclose(sums, factors @ embeddings, atol=1e-5)
        by_user = audiences.gradient(by_item, part, 1.5)
        np.testing.assert_allclose(by_user, factors.T @ by_item, atol=1e-5)


def test_the_whole_audience_is_that_of_all_ratings(matrix: RatingsMatrix) -> None:
    """Serving uses the whole audience, training a part of it."""
    audiences = Audiences(matrix, damping=2.0)
    everyone = audiences.part(np.zeros(matrix.rating_count, dtype=np.float32), 0.0)
    np.testing.assert_array_equal(everyone.indptr, audiences.whole.indptr)
    np.testing.assert_array_equal(everyone.users, audiences.whole.users)
