"""iALS: its solutions minimise the documented loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_core.arrays import Float64
from marquee_core.scorers.ials import IALSConfig, preference_values, solve_rows
from marquee_core.scorers.item_weights import history_matrix
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.scorers.sparse import (
    RowMatrix,
)
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Training
from toy.ratings import release_data

USERS, ITEMS = 40, 30


def data_of(seed: int) -> ReleaseData:
    """Return data of two groups of users, each of which likes one half of the items."""
    random = np.random.default_rng(seed)
    same = (np.arange(USERS)[:, None] % 2) == (np.arange(ITEMS) % 2)
    rated = random.random((USERS, ITEMS)) < np.where(same, 0.4, 0.1)
    return release_data(np.where(rated, np.where(same, 5.0, 2.0), 0.0))


def preferences(seed: int, config: IALSConfig) -> RowMatrix:
    """Return the likes of all users, with dislikes as negative values."""
    data = data_of(seed)
    values = preference_values(
        data.matrix.ratings, config, config.dislike_weight, data.dislike_limit
    )
    return history_matrix(data.matrix.all_profiles(), values, ITEMS)


def row_loss(x: Float64, values: Float64, factors: Float64, config: IALSConfig) -> float:
    """Return the loss of one row, summed over all its cells."""
    predicted = factors @ x
    count = np.abs(values).sum()
    penalty = config.regularisation * (count + config.unobserved_weight * len(factors))
    return float(
        np.sum(np.abs(values) * (np.sign(values) - predicted) ** 2)
        + config.unobserved_weight * np.sum(predicted**2)
        + penalty * (x @ x)
    )


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 2.0), st.floats(0.001, 1.0))
def test_a_row_minimises_its_documented_loss(seed: int, alpha: float, ridge: float) -> None:
    """No small change to a user's factors reduces the loss."""
    random = np.random.default_rng(seed)
    config = IALSConfig(factors=3, unobserved_weight=alpha, regularisation=ridge)
    factors = random.normal(size=(ITEMS, 3)).astype(np.float32)
    rows = preferences(seed, config)
    assert rows.data.min() < 0 < rows.data.max()
    wide = factors.astype(np.float64)
    users = solve_rows(rows, factors, wide.T @ wide, config)
    row = rows[[4]].toarray()[0].astype(np.float64)
    least = row_loss(users[4].astype(np.float64), row, wide, config)
    for step in 0.05 * random.normal(size=(10, 3)):
        assert least <= row_loss(users[4] + step, row, wide, config) + 1e-5


def test_items_liked_by_similar_users_are_recommended() -> None:
    """The items of a user's own group score higher than those of the other group."""
    data = data_of(1)
    model = IALS(IALSConfig(factors=4))
    model.fit(Training(data))
    scores = model.scorer.score(data.matrix.all_profiles())
    same = (np.arange(USERS)[:, None] % 2) == (np.arange(ITEMS) % 2)
    assert scores[same].mean() > scores[~same].mean() + 0.1


def test_an_unsolvable_system_is_an_error() -> None:
    """An invalid Gram matrix and a solution that is not finite raise errors."""
    factors, config = np.ones((ITEMS, 4), np.float32), IALSConfig(factors=4)
    liked = preferences(2, config)
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        solve_rows(liked, factors, -1e6 * np.eye(4), config)
    with pytest.raises(np.linalg.LinAlgError, match="finite"):
        solve_rows(liked, factors, np.full((4, 4), np.nan), config)


def test_a_small_penalty_is_enough() -> None:
    """A solution exists with more factors than likes and a penalty below float32's precision."""
    factors = np.random.default_rng(0).normal(size=(ITEMS, 64)).astype(np.float32)
    wide = factors.astype(np.float64)
    config = IALSConfig(factors=64, regularisation=1e-8)
    assert np.isfinite(solve_rows(preferences(2, config), factors, wide.T @ wide, config)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"factors": 0},
        {"sweeps": 0},
        {"minimum_stars": np.nan},
        {"unobserved_weight": 0.0},
        {"regularisation": -1.0},
    ],
)
def test_an_invalid_configuration_is_refused(changes: dict[str, float]) -> None:
    """A configuration with a value out of range cannot be created."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        IALSConfig(**changes)  # type: ignore[arg-type]
