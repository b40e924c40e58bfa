"""The compiled loops of `SparseAutoencoder`, over the rated cells of a batch.

Arrays are those of `Cells` and `SparseAutoencoder`. Threads run the loops for different rows or for
different columns.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from marquee_core.arrays import Float32, Int32, Int64

# Adam's decay rates of the first and second moments. Training has few steps, so the second moment
# must adapt fast.
BETA_1 = 0.9
BETA_2 = 0.99
_EPSILON = 1e-7


@njit(nogil=True)
def order_by_column(columns: Int32, starts: Int64, by_column: Int64) -> None:
    """Orders cells by column, and those of a column by row.

    Args:
        columns: The column of each cell (int32, n).
        starts: The start of each column (int64, columns); overwritten.
        by_column: The cells by column (int64, n); written.
    """
    for cell in range(len(columns)):
        column = columns[cell]
        by_column[starts[column]] = cell
        starts[column] += 1


@njit(nogil=True, fastmath=True)
def encode_rows(
    indptr: Int64,
    columns: Int32,
    residuals: Float32,
    given: Float32,
    scales: Float32,
    set_scale: np.float32,
    encoder: Float32,
    bias: Float32,
    codes: Float32,
    first: int,
    last: int,
) -> None:
    """Encodes the rows from `first` to `last`; see `SparseAutoencoder` and `Cells`."""
    units, count = len(bias), len(encoder) // 2
    for row in range(first, last):
        code = codes[row]
        for unit in range(units):
            code[unit] = 0.0
        for cell in range(indptr[row], indptr[row + 1]):
            if given[cell] == 0.0:
                continue
            of_residual, of_mark = encoder[columns[cell]], encoder[count + columns[cell]]
            residual, mark = given[cell] * residuals[cell], given[cell] * set_scale
            for unit in range(units):
                code[unit] += residual * of_residual[unit] + mark * of_mark[unit]
        for unit in range(units):
            code[unit] = np.float32(1) / (
                np.float32(1) + np.exp(-(scales[row] * code[unit] + bias[unit]))
            )


@njit(nogil=True, fastmath=True)
def decode_rows(
    indptr: Int64,
    columns: Int32,
    residuals: Float32,
    codes: Float32,
    decoder: Float32,
    bias: Float32,
    errors: Float32,
    gradients: Float32,
    first: int,
    last: int,
) -> float:
    """Predicts the cells of the rows from `first` to `last`.

    Args:
        indptr: See `Cells`.
        columns: See `Cells`.
        residuals: See `Cells`.
        codes: The codes of the rows (float32, B × h).
        decoder: W.
        bias: a.
        errors: The derivative of the loss by each prediction (float32, n); written.
        gradients: The derivative of the loss by the input of the sigmoid (float32, B × h); written.
        first: The first row.
        last: The end of the rows.

    Returns:
        The sum of the squared errors.
    """
    units = codes.shape[1]
    squares = 0.0
    for row in range(first, last):
        code, gradient = codes[row], gradients[row]
        for unit in range(units):
            gradient[unit] = 0.0
        for cell in range(indptr[row], indptr[row + 1]):
            weights = decoder[columns[cell]]
            error = bias[columns[cell]] - residuals[cell]
            for unit in range(units):
                error += code[unit] * weights[unit]
            squares += error * error
            error *= np.float32(2)
            errors[cell] = error
            for unit in range(units):
                gradient[unit] += error * weights[unit]
        for unit in range(units):
            gradient[unit] *= code[unit] * (np.float32(1) - code[unit])
    return squares


@njit(nogil=True, fastmath=True)
def update_columns(
    column_indptr: Int64,
    by_column: Int64,
    rows: Int32,
    residuals: Float32,
    given: Float32,
    scales: Float32,
    set_scale: np.float32,
    codes: Float32,
    gradients: Float32,
    errors: Float32,
    encoder: Float32,
    encoder_first: Float32,
    encoder_second: Float32,
    decoder: Float32,
    decoder_first: Float32,
    decoder_second: Float32,
    bias: Float32,
    bias_first: Float32,
    bias_second: Float32,
    size: np.float32,
    penalty: np.float32,
    first: int,
    last: int,
) -> None:
    """Updates the weights of the columns from `first` to `last` by their gradients.

    For the arguments, see `Cells`, `SparseAutoencoder` and `decode_rows`. Weights are followed by
    their first and second moments, `size` is the step size, and `penalty` is λ.
    """
    units, count = codes.shape[1], len(decoder)
    of_residual = np.empty(units, dtype=np.float32)
    of_mark = np.empty(units, dtype=np.float32)
    of_code = np.empty(units, dtype=np.float32)
    of_bias = np.empty(1, dtype=np.float32)
    for column in range(first, last):
        mark_row = count + column
        for unit in range(units):
            of_residual[unit] = penalty * encoder[column, unit]
            of_mark[unit] = penalty * encoder[mark_row, unit]
            of_code[unit] = penalty * decoder[column, unit]
        of_bias[0] = 0.0
        for position in range(column_indptr[column], column_indptr[column + 1]):
            cell = by_column[position]
            row, error = rows[cell], errors[cell]
            code = codes[row]
            of_bias[0] += error
            for unit in range(units):
                of_code[unit] += error * code[unit]
            if given[cell] != 0.0:
                gradient, share = gradients[row], scales[row] * given[cell]
                residual, mark = share * residuals[cell], share * set_scale
                for unit in range(units):
                    of_residual[unit] += residual * gradient[unit]
                    of_mark[unit] += mark * gradient[unit]
        adam(encoder[column], encoder_first[column], encoder_second[column], of_residual, size)
        adam(encoder[mark_row], encoder_first[mark_row], encoder_second[mark_row], of_mark, size)
        adam(decoder[column], decoder_first[column], decoder_second[column], of_code, size)
        own = slice(column, column + 1)
        adam(bias[own], bias_first[own], bias_second[own], of_bias, size)


@njit(nogil=True, fastmath=True)
def adam(
    weights: Float32, first: Float32, second: Float32, gradient: Float32, size: np.float32
) -> None:
    """Updates weights and the moments of their gradients in place (float32, n each)."""
    for position in range(len(weights)):
        g = gradient[position]
        first[position] += np.float32(1.0 - BETA_1) * (g - first[position])
        second[position] += np.float32(1.0 - BETA_2) * (g * g - second[position])
        weights[position] -= (
            size * first[position] / (np.sqrt(second[position]) + np.float32(_EPSILON))
        )


@njit(nogil=True, fastmath=True)
def predict_cells(
    codes: Float32,
    decoder: Float32,
    bias: Float32,
    rows: Int32,
    columns: Int32,
    predicted: Float32,
) -> None:
    """See `SparseAutoencoder.predict`; `predicted` is written."""
    for cell in range(len(rows)):
        code, weights = codes[rows[cell]], decoder[columns[cell]]
        total = bias[columns[cell]]
        for unit in range(len(code)):
            total += code[unit] * weights[unit]
        predicted[cell] = total
