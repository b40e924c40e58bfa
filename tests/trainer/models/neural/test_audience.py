"""The sums of an item's audience, and their gradient."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Float32
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.neural.audience import Audience, Audiences
from toy.ratings import ratings_matrix

USERS, ITEMS, FACTORS = 12, 9, 5


@pytest.fixture(scope="module")
def matrix() -> RatingsMatrix:
    """Random ratings; the first item and the last user have none."""
    random = np.random.default_rng(3)
    rated = random.random((USERS, ITEMS)) < 0.5
    rated[-1], rated[:, 0] = False, False
    return ratings_matrix(np.where(rated, random.integers(1, 6, rated.shape), 0))


def dense(matrix: RatingsMatrix, part: Audience, weight: float) -> Float32:
    """Return the sums over a part as a matrix to multiply embeddings with (items × users)."""
    items = np.repeat(np.arange(ITEMS), np.diff(part.indptr))
    factors = np.zeros((ITEMS, USERS), dtype=np.float32)
    factors[items, part.users] = weight / np.sqrt(matrix.item_counts[items] + 2.0)
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
    for step in range(2):
        part = audiences.part(dropout, (0, step))
        factors = dense(matrix, part, 1.5)
        sums = audiences.sums(embeddings, part, 1.5)
        np.testing.assert_allclose(sums, factors @ embeddings, atol=1e-5)
        by_user = audiences.gradient(by_item, part, 1.5)
        np.testing.assert_allclose(by_user, factors.T @ by_item, atol=1e-5)


def test_a_part_leaves_out_each_rating_with_the_same_chance(matrix: RatingsMatrix) -> None:
    """Over many steps, whatever their seed; the ratings that remain are those of the matrix."""
    audiences, steps = Audiences(matrix, damping=2.0), 2_000
    kept = np.zeros((ITEMS, USERS))
    for step in range(steps):
        kept += dense(matrix, audiences.part(0.3, (5, step)), 1.0) > 0.0
    shares = kept[matrix.items, matrix.users] / steps
    assert kept.sum() == kept[matrix.items, matrix.users].sum()
    # Five standard deviations.
    np.testing.assert_allclose(shares, 0.7, atol=5 * np.sqrt(0.3 * 0.7 / steps))


def test_a_part_depends_on_its_seed_alone(matrix: RatingsMatrix) -> None:
    """A refit that continues, or a resumed training, draws the parts that it would have drawn."""
    one, other = Audiences(matrix, damping=2.0), Audiences(matrix, damping=2.0)
    users = [audiences.part(0.5, (3, 7)).users.copy() for audiences in (one, other)]
    np.testing.assert_array_equal(users[0], users[1])
    assert not np.array_equal(users[0], one.part(0.5, (3, 8)).users)


def test_the_whole_audience_is_that_of_all_ratings(matrix: RatingsMatrix) -> None:
    """Serving uses the whole audience, training a part of it."""
    audiences = Audiences(matrix, damping=2.0)
    everyone = audiences.part(0.0, (0,))
    np.testing.assert_array_equal(everyone.indptr, audiences.whole.indptr)
    np.testing.assert_array_equal(everyone.users, audiences.whole.users)
