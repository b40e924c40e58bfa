"""Beyond-accuracy metrics, compared with their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.data.interactions import Interactions
from marquee_trainer.metrics.beyond_accuracy import beyond_accuracy, gini
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from toy.ratings import ratings_matrix


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_the_gini_coefficient_is_half_the_relative_mean_difference(amounts: list[int]) -> None:
    """The coefficient equals its definition over all pairs, and is 0 if all amounts are 0."""
    values = np.array(amounts, dtype=np.int64)
    differences = np.abs(values[:, None] - values[None, :]).mean()
    expected = differences / (2 * values.mean()) if values.sum() else 0.0
    assert gini(values) == pytest.approx(expected)


def test_metrics_match_hand_computed_values() -> None:
    """One user of four gets items 1 and 2, rated by two users and one; item 2 is relevant."""
    train = ratings_matrix(np.array([[5, 0, 0, 0], [5, 5, 0, 0], [0, 4, 3, 0], [4, 0, 0, 3]]))
    test = Interactions(
        np.array([0, 0], dtype=np.int32),
        np.array([2, 3], dtype=np.int32),
        np.array([5, 1], dtype=np.float32),
    )
    task = RankingTask.of(train, test, 4.0)
    scores = np.array([[9, 3, 2, 1]], dtype=np.float32)
    vectors = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    ranked = ranking_metrics(task, lambda users: scores[users], 2)
    found = beyond_accuracy(task, ranked, vectors, 2)
    assert found["novelty@2"] == pytest.approx((1 + 2) / 2)
    assert found["gini@2"] == pytest.approx(1 / 2)
    assert found["diversity@2"] == pytest.approx(1 - 0.6)
    # With a single relevant item, its gain cancels out.
    assert found["debiased_ndcg@2"] == pytest.approx(1 / math.log2(3))
