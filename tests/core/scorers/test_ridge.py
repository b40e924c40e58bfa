"""Ridge regressions are solved exactly, whichever method their size calls for."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.scorers import ridge
from marquee_core.scorers.ridge import solve_ridge


def _problem(
    rows: int, columns: int, penalty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns X, y and λ, and the solution in double precision."""
    random = np.random.default_rng(rows * 1_000 + columns)
    # Columns of very different sizes, as in a fitted model.
    scales = 1.0 / np.sqrt(1.0 + np.arange(columns))
    design = (random.standard_normal((rows, columns)) * scales).astype(np.float32)
    targets = random.standard_normal(rows).astype(np.float32)
    penalties = np.full(columns, penalty, np.float32)
    penalties[-1] = 5.0
    exact = design.astype(np.float64)
    normal = exact.T @ exact + np.diag(penalties.astype(np.float64))
    return design, targets, penalties, np.linalg.solve(normal, exact.T @ targets)


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 300), (40, 300), (129, 300), (300, 301), (900, 301), (900, 64)]
)
@pytest.mark.parametrize("penalty", [0.5, 80.0])
def test_solutions_are_exact_for_any_number_of_ratings(
    rows: int, columns: int, penalty: float
) -> None:
    """Predictions of the dual, the primal and the iterative solution agree with float64."""
    design, targets, penalties, expected = _problem(rows, columns, penalty)
    found = solve_ridge(design, targets, penalties)
    assert found.dtype == np.float32
    assert found.shape == (columns,)
    assert np.abs(design @ found - design @ expected).max() < 1e-4


def test_systems_on_which_the_iterations_do_not_converge_are_solved_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A system that needs more iterations than allowed still gets its exact solution."""
    monkeypatch.setattr(ridge, "_MAX_ITERATIONS", 2)
    design, targets, penalties, expected = _problem(300, 200, 0.5)
    found = solve_ridge(design, targets, penalties)
    assert np.abs(design @ found - design @ expected).max() < 1e-4


def test_ratings_equal_to_the_offsets_yield_a_vector_of_zeros() -> None:
    """Without deviations there is nothing to explain, and no iteration divides by 0."""
    design, targets, penalties, _ = _problem(300, 200, 1.0)
    assert not solve_ridge(design, np.zeros_like(targets), penalties).any()
