"""Solves many small linear systems together.

LAPACK solves one system per call, and for a 17 × 17 matrix the overhead of the calls dominates.
Here each step of the factorisation is one vectorised operation over all systems.
"""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32, Float64

# Up to this number of systems, LAPACK is faster.
_FEW = 120


def solve_positive_definite(systems: Float32 | Float64, added: Float64) -> Float64:
    """Solves (A + C) x = b for B × S positive definite matrices A + C.

    The matrices are factorised as L D Lᵀ row by row, without pivoting, which positive definite
    matrices do not need (Golub and Van Loan, Matrix Computations, section 4.1).

    Args:
        systems: Each A, and b as the last column (float32 or float64, B × S × k × (k + 1)).
        added: C of each column of systems (float64, S × k × k).

    Returns:
        x of each system (float64, k × B × S).

    Raises:
        LinAlgError: A solution is not finite.
    """
    few = systems.shape[0] * systems.shape[1] <= _FEW
    solved = (_solve_with_lapack if few else _solve_vectorised)(systems, added)
    if not np.isfinite(solved).all():
        raise np.linalg.LinAlgError("a solution is not finite")
    return solved


def _solve_with_lapack(systems: Float32 | Float64, added: Float64) -> Float64:
    matrices: Float64 = systems[..., :-1] + added
    right: Float64 = systems[..., -1:].astype(np.float64)
    solved: Float64 = np.linalg.solve(matrices, right)[..., 0].astype(np.float64, copy=False)
    return solved.transpose(2, 0, 1)


def _solve_vectorised(systems: Float32 | Float64, added: Float64) -> Float64:
    size = systems.shape[2]
    # The systems come last here. Row r consists of the columns from r on.
    rows = np.empty((size, size + 1, *systems.shape[:2]))
    constants = np.zeros((size, size + 1, 1, len(added)))
    constants[:, :-1, 0] = added.transpose(1, 2, 0)
    flat = rows.reshape(size, size + 1, -1)
    inverse_pivots = np.empty((size, flat.shape[2]))
    for row in range(size):
        own = systems[:, :, row, row:].transpose(2, 0, 1)
        np.add(own, constants[row, row:], out=rows[row, row:])
        if row:
            factors = flat[:row, row] * inverse_pivots[:row]
            flat[row, row:] -= np.einsum("pn,pkn->kn", factors, flat[:row, row:])
        np.divide(1.0, flat[row, row], out=inverse_pivots[row])
    solved = np.empty_like(inverse_pivots)
    for row in range(size - 1, -1, -1):
        known = np.einsum("kn,kn->n", flat[row, row + 1 : size], solved[row + 1 :])
        np.multiply(flat[row, size] - known, inverse_pivots[row], out=solved[row])
    return solved.reshape(size, *systems.shape[:2])
