"""Many small linear systems that are solved together."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Float64
from marquee_core.scorers.small_systems import solve_positive_definite


def systems(count: int, size: int = 17) -> tuple[Float64, Float64]:
    """Draw matrices, each with a right-hand side as its last column, and a matrix to add to each.

    The sums are positive definite, unlike the matrices without the added ones.
    """
    random = np.random.default_rng(count)
    design = random.normal(size=(count, 5, size))
    matrices = design.transpose(0, 2, 1) @ design
    right = random.normal(size=(count, size, 1))
    added = random.uniform(0.1, 1.0, (count, 1, 1)) * np.eye(size)
    return np.concatenate([matrices, right], axis=2), added


@pytest.mark.parametrize(("users", "samples"), [(1, 1), (1, 60), (60, 1), (11, 11), (3, 200)])
def test_solutions_equal_those_of_lapack(users: int, samples: int) -> None:
    """Solutions agree for a few systems and for many."""
    matrices, _ = systems(users * samples)
    matrices = matrices.reshape(users, samples, *matrices.shape[1:])
    _, added = systems(samples)
    expected = np.linalg.solve(matrices[..., :-1] + added, matrices[..., -1:])[..., 0]
    solved = solve_positive_definite(matrices, added).transpose(1, 2, 0)
    np.testing.assert_allclose(solved, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [1, 500])
def test_a_value_that_is_not_finite_is_an_error(count: int) -> None:
    """A value that is not finite must not become the score of an item."""
    matrices, added = systems(count)
    matrices[0, 3, 3] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        solve_positive_definite(matrices[None], added)
