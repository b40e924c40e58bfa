"""An autoencoder of sparse rows, whose training cost is proportional to the rated cells.

A dense implementation multiplies whole rows, of which at most a few per cent are rated in a large
catalogue. Here only rated cells are computed: the encoder adds the weights of a row's cells, and
the decoder predicts only those cells. A step passes over the cells by row, for the codes and the
errors, and then by column, for the gradients. Each thread updates the weights of different columns,
so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64
from marquee_core.cores import usable_cores
from marquee_core.ratings import Profiles
from marquee_trainer.models.neural.sparse_kernels import (
    BETA_1,
    BETA_2,
    adam,
    decode_rows,
    encode_rows,
    order_by_column,
    predict_cells,
    update_columns,
)
from marquee_trainer.threads import map_blocks

_INITIAL_DEVIATION = 0.05
# With several blocks for each core, all cores finish at about the same time.
_BLOCKS_PER_CORE = 8
_ROW_BLOCK = 64


@dataclass(frozen=True)
class Cells:
    """The rated cells of a batch of B rows, by row and by column.

    Attributes:
        indptr: The start of each row, then the end of the last one (int64, B + 1).
        columns: The column of each cell (int32, n).
        residuals: The residual of each cell, in stars (float32, n).
        scales: The scale of each row's inputs (float32, B).
        column_indptr: The start of each column in `by_column`, then the end of the last one
            (int64, columns + 1).
        by_column: The cells, ordered by column (int64, n).
        rows: The row of each cell (int32, n).
    """

    indptr: Int64
    columns: Int32
    residuals: Float32
    scales: Float32
    column_indptr: Int64
    by_column: Int64
    rows: Int32

    @classmethod
    def of(cls, profiles: Profiles, scales: Float32, column_count: int) -> Cells:
        """Orders the cells of a batch.

        Args:
            profiles: The rows.
            scales: The scale of each row's inputs (float32, B).
            column_count: The number of columns of the matrix.
        """
        column_indptr = np.zeros(column_count + 1, dtype=np.int64)
        np.cumsum(np.bincount(profiles.items, minlength=column_count), out=column_indptr[1:])
        by_column = np.empty(len(profiles.items), dtype=np.int64)
        order_by_column(profiles.items, column_indptr[:-1].copy(), by_column)
        return cls(
            profiles.indptr,
            profiles.items,
            profiles.ratings,
            scales,
            column_indptr,
            by_column,
            profiles.rows.astype(np.int32),
        )


class SparseAutoencoder:
    """r̂ = W · sigmoid(V x + m) + a for sparse rows x: residuals, and marks of rated cells.

    The loss of a batch is Σ (r̂ − r)² over its rated cells + λ (|V|² + |W|²) / 2, which Adam
    (Kingma and Ba, 2015) minimises.

    Attributes:
        encoder: V, for residuals and then for marks (float32, 2 columns × h).
        encoder_bias: m (float32, h).
        decoder: W (float32, columns × h).
        decoder_bias: a (float32, columns).
    """

    def __init__(self, columns: int, hidden_units: int, set_scale: float, seed: int) -> None:
        """Creates a network with small random weights.

        Args:
            columns: The number of columns of the ratings matrix.
            hidden_units: h, the number of hidden units.
            set_scale: The input that marks a cell as rated, in stars.
            seed: Seed for the weights.
        """
        random = np.random.default_rng(seed)
        deviation = np.float32(_INITIAL_DEVIATION)
        shape = (2 * columns, hidden_units)
        self.encoder: Float32 = random.standard_normal(shape, dtype=np.float32) * deviation
        self.encoder_bias: Float32 = np.zeros(hidden_units, dtype=np.float32)
        self.decoder: Float32 = (
            random.standard_normal((columns, hidden_units), dtype=np.float32) * deviation
        )
        self.decoder_bias: Float32 = np.zeros(columns, dtype=np.float32)
        self._set_scale = np.float32(set_scale)
        # First and second moments of each weight.
        self._moments = [(np.zeros_like(w), np.zeros_like(w)) for w in self._weights]
        self._steps = 0

    @property
    def _weights(self) -> tuple[Float32, Float32, Float32, Float32]:
        return self.encoder, self.encoder_bias, self.decoder, self.decoder_bias

    def get_weights(self) -> list[Float32]:
        """Copies of V, m, W and a."""
        return [weight.copy() for weight in self._weights]

    def set_weights(self, weights: Sequence[Float32]) -> None:
        """Copies given values to V, m, W and a."""
        for own, given in zip(self._weights, weights, strict=True):
            own[...] = given

    def encode(self, cells: Cells) -> Float32:
        """Encodes rows (float32, B × h)."""
        codes = np.empty((len(cells.scales), len(self.encoder_bias)), dtype=np.float32)
        given = np.ones(len(cells.columns), dtype=np.float32)
        _over_rows(cells, lambda first, last: self._encode(cells, given, codes, first, last))
        return codes

    def predict(self, codes: Float32, rows: Int32, columns: Int32) -> Float32:
        """Predicts cells.

        Args:
            codes: The codes of all rows (float32, rows × h).
            rows: The row of each cell (int32, n).
            columns: The column of each cell (int32, n).

        Returns:
            Their residuals, in stars (float32, n).
        """
        predicted = np.empty(len(rows), dtype=np.float32)
        predict_cells(codes, self.decoder, self.decoder_bias, rows, columns, predicted)
        return predicted

    def step(self, cells: Cells, given: Float32, rate: float, l2: float) -> float:
        """Updates the weights by one step of Adam.

        Args:
            cells: The batch.
            given: The weight of each cell as an input: 0 if it is dropped, otherwise 1 / (1 −
                dropout rate) (float32, n).
            rate: The learning rate.
            l2: λ.

        Returns:
            The sum of the squared errors of the batch.
        """
        self._steps += 1
        bias_1, bias_2 = 1.0 - BETA_1**self._steps, 1.0 - BETA_2**self._steps
        size = np.float32(rate * bias_2**0.5 / bias_1)
        codes = np.empty((len(cells.scales), len(self.encoder_bias)), dtype=np.float32)
        gradients = np.empty_like(codes)
        errors = np.empty(len(cells.columns), dtype=np.float32)

        def forward(first: int, last: int) -> float:
            self._encode(cells, given, codes, first, last)
            return float(
                decode_rows(
                    cells.indptr,
                    cells.columns,
                    cells.residuals,
                    codes,
                    self.decoder,
                    self.decoder_bias,
                    errors,
                    gradients,
                    first,
                    last,
                )
            )

        squares = sum(_over_rows(cells, forward))
        penalty = np.float32(l2)
        encoder_moments, bias_moments, decoder_moments, output_moments = self._moments

        def backward(first: int, last: int) -> None:
            update_columns(
                cells.column_indptr,
                cells.by_column,
                cells.rows,
                cells.residuals,
                given,
                cells.scales,
                self._set_scale,
                codes,
                gradients,
                errors,
                self.encoder,
                encoder_moments[0],
                encoder_moments[1],
                self.decoder,
                decoder_moments[0],
                decoder_moments[1],
                self.decoder_bias,
                output_moments[0],
                output_moments[1],
                size,
                penalty,
                first,
                last,
            )

        columns = len(self.decoder)
        map_blocks(backward, columns, _block_size(columns))
        total = gradients.sum(axis=0)
        adam(self.encoder_bias, bias_moments[0], bias_moments[1], total, size)
        return squares

    def _encode(self, cells: Cells, given: Float32, codes: Float32, first: int, last: int) -> None:
        encode_rows(
            cells.indptr,
            cells.columns,
            cells.residuals,
            given,
            cells.scales,
            self._set_scale,
            self.encoder,
            self.encoder_bias,
            codes,
            first,
            last,
        )


def _block_size(count: int) -> int:
    return max(1, -(-count // (_BLOCKS_PER_CORE * usable_cores())))


def _over_rows(cells: Cells, work: Callable[[int, int], float | None]) -> list[float]:
    """Calls a function on blocks of the batch's rows in parallel; see `map_blocks`."""
    # The size of blocks is independent of the number of cores, and so is the sum of their results.
    return [found or 0.0 for found in map_blocks(work, len(cells.scales), _ROW_BLOCK)]
