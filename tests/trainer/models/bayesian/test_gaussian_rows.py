"""Draws of row vectors from their Gaussian conditionals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from marquee_core.arrays import Float64
from marquee_trainer.models.bayesian.gaussian_rows import Conditionals, draw_rows

ROWS, COLUMNS, WIDTH = 300, 40, 5


def test_draws_follow_the_conditional_distribution() -> None:
    """Each draw equals L⁻ᵀ (L⁻¹ b + z) from LAPACK, in all blocks and without columns."""
    random = np.random.default_rng(0)
    has = random.random((ROWS, COLUMNS)) < 0.1
    has[::50] = False
    dense = np.where(has, random.normal(size=has.shape), 0.0)
    rated = csr_array(dense)
    design = random.normal(size=(COLUMNS, WIDTH))
    noise = random.gamma(2.0, size=ROWS)
    root = random.normal(size=(WIDTH, WIDTH))
    precision = root @ root.T + np.eye(WIDTH)
    pulls, deviates = random.normal(size=(2, ROWS, WIDTH))
    rows = Conditionals(rated.indptr, rated.indices, rated.data, design, noise, precision, pulls)
    found = draw_rows(rows, deviates)
    for row in range(ROWS):
        part = design[has[row]]
        lower = np.linalg.cholesky(precision + noise[row] * part.T @ part)
        right = pulls[row] + noise[row] * dense[row, has[row]] @ part
        expected: Float64 = np.linalg.solve(lower.T, np.linalg.solve(lower, right) + deviates[row])
        np.testing.assert_allclose(found[row], expected, rtol=1e-9)


def test_a_precision_that_is_not_positive_definite_is_an_error() -> None:
    """A matrix without a Cholesky decomposition raises an error."""
    empty = np.zeros(ROWS + 1, np.int32), np.empty(0, np.int32), np.empty(0)
    zeros = np.zeros((ROWS, WIDTH))
    design, noise = np.zeros((COLUMNS, WIDTH)), np.ones(ROWS)
    rows = Conditionals(*empty, design, noise, -np.eye(WIDTH), zeros)
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        draw_rows(rows, zeros)
