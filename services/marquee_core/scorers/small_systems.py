"""Solves many small linear systems together.

LAPACK solves one system per call, and for a 17 × 17 matrix the overhead of the calls dominates.
Here each step of the factorisation is one vectorised operation over all systems.
"""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float64

# Up to this number of systems, LAPACK is faster.
_FEW = 120


def solve_positive_definite(systems: Float64) -> Float64:
    """Solves A x = b for n positive definite matrices A.

    The matrices are factorised as L D Lᵀ row by row, without pivoting, which positive definite
    matrices do not need (Golub and Van Loan, Matrix Computations, section 4.1).

    Args:
        systems: Each A, and b as the last column; overwritten (float64, k × (k + 1) × n).

    Returns:
        x of each system (float64, k × n).

    Raises:
        LinAlgError: A solution is not finite.
    """
    few = systems.shape[2] <= _FEW
    solved = _solve_with_lapack(systems) if few else _solve_vectorised(systems)
    if not np.isfinite(solved).all():
        raise np.linalg.LinAlgError("a solution is not finite")
    return solved


def _solve_with_lapack(systems: Float64) -> Float64:
    matrices, right = systems[:, :-1].transpose(2, 0, 1), systems[:, -1:].transpose(2, 0, 1)
    return np.linalg.solve(matrices, right)[:, :, 0].T.astype(np.float64, copy=False)


def _solve_vectorised(systems: Float64) -> Float64:
    size = len(systems)
    inverse_pivots = np.empty((size, systems.shape[2]))
    for row in range(size):
        if row:
            factors = systems[:row, row] * inverse_pivots[:row]
            systems[row, row:] -= np.einsum("pn,pkn->kn", factors, systems[:row, row:])
        np.divide(1.0, systems[row, row], out=inverse_pivots[row])
    solved = np.empty_like(inverse_pivots)
    for row in range(size - 1, -1, -1):
        known = np.einsum("kn,kn->n", systems[row, row + 1 : size], solved[row + 1 :])
        np.multiply(systems[row, size] - known, inverse_pivots[row], out=solved[row])
    return solved
