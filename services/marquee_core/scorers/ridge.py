"""Ridge regression of a user's ratings on the vectors of the rated items."""

from __future__ import annotations

import numpy as np

from marquee_core.arrays import Float32

# A system with more rows than this is solved iteratively. Each iteration reads the design matrix
# twice, and a few dozen of them cost less than the products of its rows or columns.
_MANY = 128
# The iterations end when the residual is this small in relation to the right-hand side. It changes
# predictions by about 1e-5 stars.
_TOLERANCE = 1e-6
# Several times the usual number of iterations; an ill-conditioned system is solved directly.
_MAX_ITERATIONS = 100


def solve_ridge(design: Float32, targets: Float32, penalties: Float32) -> Float32:
    """Minimises |X w − y|² + Σ_j λ_j w_j².

    Args:
        design: X (float32, n × d).
        targets: y (float32, n).
        penalties: λ, positive (float32, d).

    Returns:
        w (float32, d).

    Raises:
        LinAlgError: The system is singular.
    """
    rows, columns = design.shape
    if min(rows, columns) > _MANY:
        weights = _conjugate_gradients(design, targets, penalties)
        if weights is not None:
            return weights
    if rows < columns:
        # With few ratings the dual problem is smaller (Saunders et al., 1998).
        weighted = design / penalties
        system = design @ weighted.T
        np.einsum("ii->i", system)[:] += 1.0
        dual: Float32 = np.linalg.solve(system, targets) @ weighted
        return dual
    normal = design.T @ design
    np.einsum("ii->i", normal)[:] += penalties
    return np.linalg.solve(normal, design.T @ targets)


def _conjugate_gradients(design: Float32, targets: Float32, penalties: Float32) -> Float32 | None:
    """Solves (XᵀX + Λ) w = Xᵀy by conjugate gradients with the preconditioner Λ.

    See Golub and Van Loan, Matrix Computations, section 11.5. XᵀX is never formed.

    Returns:
        w (float32, d); None if the iterations do not converge.
    """
    weights = np.zeros_like(penalties)
    residual = targets @ design
    scaled = residual / penalties
    direction = scaled.copy()
    size = float(residual @ scaled)
    goal = _TOLERANCE**2 * size
    for _ in range(_MAX_ITERATIONS):
        if size <= goal:
            return weights
        image = (design @ direction) @ design
        image += penalties * direction
        step = np.float32(size / float(direction @ image))
        weights += step * direction
        residual -= step * image
        np.divide(residual, penalties, out=scaled)
        previous, size = size, float(residual @ scaled)
        direction *= np.float32(size / previous)
        direction += scaled
    return None
