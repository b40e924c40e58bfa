"""Draws of rows' vectors from their Gaussian conditionals, on all cores.

Each row has a small system of its own. Of thousands, the calls to build and to solve them would
cost more than what is computed, so this is compiled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from marquee_core.arrays import Float64, Int32
from marquee_trainer.threads import by_blocks

# Rows that a thread takes at once.
_BLOCK = 128


class Conditionals(NamedTuple):
    """N(A_r⁻¹ b_r, A_r⁻¹) of each row r.

    A_r = Λ + α_r Σ_c d_c d_cᵀ and b_r = h_r + α_r Σ_c w_rc d_c, over the columns c that the row has
    (Salakhutdinov and Mnih, 2008, equations 11 to 13).

    Attributes:
        indptr: Where each row begins in `columns` and `wanted`, and the end of the last.
        columns: The columns of each row (int32, nnz).
        wanted: w (float64, nnz).
        design: d (float64, columns × k).
        noise: α (float64, n).
        precision: Λ (float64, k × k).
        pulls: h (float64, n × k).
    """

    indptr: Int32
    columns: Int32
    wanted: Float64
    design: Float64
    noise: Float64
    precision: Float64
    pulls: Float64


def draw_rows(rows: Conditionals, deviates: Float64) -> Float64:
    """Draws a vector for each row: with A = LLᵀ, x = L⁻ᵀ (L⁻¹ b + z).

    Args:
        rows: What is drawn from.
        deviates: z, standard normal (float64, n × k).

    Returns:
        x (float64, n × k).

    Raises:
        LinAlgError: Rounding leaves a matrix not positive definite.
    """
    drawn: Float64 = np.empty_like(deviates)

    def block(first: int, last: int) -> bool:
        done: bool = _draw(rows, deviates, first, last, drawn)
        return done

    if not all(by_blocks(block, len(deviates), _BLOCK)):
        raise np.linalg.LinAlgError("a conditional's precision is not positive definite")
    return drawn


@njit(nogil=True)
def _draw(rows: Conditionals, deviates: Float64, first: int, last: int, drawn: Float64) -> bool:
    """As `draw_rows`, of the rows from one to another, into `drawn`; False if it cannot be."""
    indptr, columns, wanted, design, noise, precision, pulls = rows
    width = len(precision)
    system = np.empty((width, width))
    longest = 0
    for row in range(first, last):
        longest = max(longest, indptr[row + 1] - indptr[row])
    # The row's d side by side, so that sums run over what is contiguous.
    part = np.empty((width, longest))
    for row in range(first, last):
        x = drawn[row]
        start, count = indptr[row], indptr[row + 1] - indptr[row]
        for place in range(count):
            vector = design[columns[start + place]]
            for i in range(width):
                part[i, place] = vector[i]
        for i in range(width):
            mine = part[i, :count]
            x[i] = pulls[row, i] + noise[row] * _dot(mine, wanted[start : start + count])
            for j in range(i + 1):
                system[i, j] = precision[i, j] + noise[row] * _dot(mine, part[j, :count])
        # Cholesky's decomposition in the lower half, and L⁻¹ b on the way.
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
    """Σ a_i b_i, in whatever order is quick."""
    total = 0.0
    for place in range(len(a)):
        total += a[place] * b[place]
    return total
