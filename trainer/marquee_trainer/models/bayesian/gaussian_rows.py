"""Draws row vectors from their Gaussian conditional distributions, on all cores.

Each row requires the solution of a small linear system. For thousands of rows, the overhead of
NumPy calls would exceed the computation itself, so the whole loop is compiled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from marquee_core.arrays import Float64, Int32, Int64
from marquee_trainer.threads import map_blocks

# Number of rows that a thread draws at a time.
_BLOCK = 128


class Conditionals(NamedTuple):
    """The conditional distribution N(A_r⁻¹ b_r, A_r⁻¹) of each row r.

    A_r = Λ + α_r Σ_c d_c d_cᵀ and b_r = h_r + α_r Σ_c w_rc d_c, summed over the columns c that row
    r has a rating in (Salakhutdinov and Mnih, 2008, equations 11 to 13).

    Attributes:
        indptr: The start of each row in `columns` and `targets`, then the end of the last (int32,
            or int64 from 2³¹ ratings on; n + 1).
        columns: The columns of each row (of the type of `indptr`, nnz).
        targets: w, the regression target of the row in each column (float64, nnz).
        design: d, the vectors of the columns (float64, columns × k).
        noise: α, the noise precision of each row (float64, n).
        precision: Λ, the prior precision (float64, k × k).
        pulls: h, the product of Λ and the prior mean of each row (float64, n × k).
    """

    indptr: Int32 | Int64
    columns: Int32 | Int64
    targets: Float64
    design: Float64
    noise: Float64
    precision: Float64
    pulls: Float64


def draw_rows(rows: Conditionals, deviates: Float64) -> Float64:
    """Draws a vector for each row: with A = LLᵀ, x = L⁻ᵀ (L⁻¹ b + z).

    Args:
        rows: The distributions to draw from.
        deviates: z, standard normal deviates (float64, n × k).

    Returns:
        x (float64, n × k).

    Raises:
        LinAlgError: A matrix A is not positive definite, for example because of rounding.
    """
    vectors: Float64 = np.empty_like(deviates)

    def block(first: int, last: int) -> bool:
        succeeded: bool = _draw(rows, deviates, first, last, vectors)
        return succeeded

    if not all(map_blocks(block, len(deviates), _BLOCK)):
        raise np.linalg.LinAlgError("a conditional's precision is not positive definite")
    return vectors


@njit(nogil=True)
def _draw(rows: Conditionals, deviates: Float64, first: int, last: int, vectors: Float64) -> bool:
    """Draws the vectors of the rows `first` to `last` and writes them to `vectors`.

    Returns:
        False if a matrix is not positive definite.
    """
    indptr, columns, targets, design, noise, precision, pulls = rows
    width = len(precision)
    system = np.empty((width, width))
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    # The vectors d of a row's columns, transposed, so that sums run over contiguous memory.
    part = np.empty((width, longest))
    for row in range(first, last):
        x = vectors[row]
        start, count = indptr[row], indptr[row + 1] - indptr[row]
        for position in range(count):
            vector = design[columns[start + position]]
            for i in range(width):
                part[i, position] = vector[i]
        for i in range(width):
            mine = part[i, :count]
            x[i] = pulls[row, i] + noise[row] * _dot(mine, targets[start : start + count])
            for j in range(i + 1):
                system[i, j] = precision[i, j] + noise[row] * _dot(mine, part[j, :count])
        # The Cholesky decomposition, in the lower triangle, and L⁻¹ b at the same time.
        for i in range(width):
            for j in range(i + 1):
                rest = system[i, j]
                for k in range(j):
                    rest -= system[i, k] * system[j, k]
                if j < i:
                    system[i, j] = rest / system[j, j]
                elif rest > 0.0:
                    system[i, i] = np.sqrt(rest)
                else:
                    return False
            rest = x[i]
            for k in range(i):
                rest -= system[i, k] * x[k]
            x[i] = rest / system[i, i]
        for i in range(width - 1, -1, -1):
            rest = x[i] + deviates[row, i]
            for k in range(i + 1, width):
                rest -= system[k, i] * x[k]
            x[i] = rest / system[i, i]
    return True


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _dot(a: Float64, b: Float64) -> float:
    """Computes Σ a_i b_i; the compiler may reorder the sum."""
    total = 0.0
    for position in range(len(a)):
        total += a[position] * b[position]
    return total
