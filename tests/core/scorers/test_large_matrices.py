"""Matrices with more values than an int32 can count.

The files behind them are sparse: only the pages that a test writes or reads take space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csc_array

from marquee_core.arrays import position_dtype
from marquee_core.scorers.neighbours import (
    Neighbours,
)
from marquee_core.scorers.sparse import (
    ColumnMatrix,
    column_sums,
    csr_matrix,
)
from marquee_trainer.models.neighbours import neighbourhoods

LIMIT = 2**31
ROWS = 4
# Column 0 has two values, column 1 has so many that column 2, with three, begins beyond the limit.
POINTERS = np.array([0, 2, LIMIT + 1, LIMIT + 4])
CELLS = [(0, 1, 0.5), (1, 3, 2.0), (LIMIT + 1, 0, 0.25), (LIMIT + 2, 1, 1.0), (LIMIT + 3, 2, -3.0)]
COLUMNS, WEIGHTS = np.array([0, 2], np.int32), np.array([4.0, 2.0], np.float32)
SUMS = [0.5, 4.0, -6.0, 8.0]
"""Of columns 0 and 2, by row, with the weights."""


def sparse_file(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    """An array of zeros in a file, as long as the pointers say."""
    mapped: NDArray[Any] = np.memmap(path, dtype, "w+", shape=(int(POINTERS[-1]),)).view(np.ndarray)
    return mapped


@pytest.fixture
def matrix(tmp_path: Path) -> ColumnMatrix:
    """A matrix by column, with the cells in columns 0 and 2 and zeros in column 1."""
    made = csc_array((ROWS, 3), dtype=np.float32)
    made.indptr = POINTERS
    made.indices = sparse_file(tmp_path / "rows", np.int64)
    made.data = sparse_file(tmp_path / "values", np.float32)
    for place, row, value in CELLS:
        made.indices[place], made.data[place] = row, value
    return made


def test_sums_of_columns_beyond_the_limit_are_right(matrix: ColumnMatrix) -> None:
    """A column that begins beyond 2³¹ values is summed from there."""
    assert column_sums(matrix, COLUMNS, WEIGHTS).tolist() == SUMS


def test_sums_of_the_trainer_beyond_the_limit_are_right(matrix: ColumnMatrix) -> None:
    """The compiled loop over co-ratings reads the same cells."""
    running = np.zeros((ROWS, 4), np.float32)
    neighbourhoods._add(matrix.indptr, matrix.indices, matrix.data, COLUMNS, WEIGHTS, running)
    assert running[:, 0].tolist() == SUMS
    assert running[:, 1].tolist() == [0.0625, 1.25, 9.0, 4.0]
    assert running[:, 3].tolist() == [1, 2, 1, 1]


def test_neighbours_beyond_the_limit_are_found(tmp_path: Path) -> None:
    """The neighbours of a row that begins beyond 2³¹ entries are its own."""
    indices = sparse_file(tmp_path / "neighbours", np.int32)
    similarities = sparse_file(tmp_path / "similarities", np.float32)
    indices[-3:], similarities[-3:] = [5, 7, 9], [0.25, 0.5, 1.0]
    neighbours = Neighbours(POINTERS, indices, similarities)
    found, values = neighbours.row(2)
    assert found.tolist() == [5, 7, 9]
    assert values.tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("last", [LIMIT, 2 * LIMIT + 2])
def test_pointers_beyond_the_limit_do_not_wrap_around(last: int) -> None:
    """Pointers that end beyond the values are refused, also where their low bits would fit."""
    with pytest.raises(ValueError, match="index"):
        csr_matrix(
            np.array([0, 1, last]), np.array([0, 1], np.int32), np.ones(2, np.float32), width=2
        )


def test_matrices_below_the_limit_share_the_arrays() -> None:
    """Where int32 suffices, neither the columns nor the values are copied."""
    indices, values = np.array([0, 1], np.int32), np.ones(2, np.float32)
    matrix = csr_matrix(np.array([0, 1, 2]), indices, values, width=2)
    assert matrix.indptr.dtype == matrix.indices.dtype == np.int32
    assert np.shares_memory(matrix.indices, indices)
    assert np.shares_memory(matrix.data, values)


@pytest.mark.parametrize(("count", "dtype"), [(LIMIT - 1, np.int32), (LIMIT, np.int64)])
def test_positions_are_as_wide_as_the_array_is_long(count: int, dtype: type[np.integer]) -> None:
    """Positions in an array take 64 bits where 32 would not hold all of them."""
    assert position_dtype(count) is dtype
    assert np.iinfo(position_dtype(count)).max >= count
