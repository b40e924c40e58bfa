"""Many small linear systems that are solved together."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.arrays import Float64
from marquee_core.scorers.small_systems import solve_positive_definite


def systems(count: int, size: int = 17) -> tuple[Float64, Float64, Float64]:
    """Draw positive definite matrices and right-hand sides, and both in the form that is solved."""
    random = np.random.default_rng(count)
    design = random.normal(size=(count, 5, size))
    matrices = design.transpose(0, 2, 1) @ design + 0.1 * np.eye(size)
    right = random.normal(size=(count, size))
    together = np.concatenate([matrices, right[:, :, None]], axis=2).transpose(1, 2, 0)
    return matrices, right, np.ascontiguousarray(together)


@pytest.mark.parametrize("count", [1, 60, 121, 500])
def test_solutions_equal_those_of_lapack(count: int) -> None:
    """Solutions agree for a few systems and for many."""
    matrices, right, together = systems(count)
    expected = np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    np.testing.assert_allclose(solve_positive_definite(together).T, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("count", [1, 500])
def test_a_value_that_is_not_finite_is_an_error(count: int) -> None:
    """A value that is not finite must not become the score of an item."""
    _, _, together = systems(count)
    together[3, 3, 0] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        solve_positive_definite(together)
