"""Matrices with more values than an int32 can count.

The files that back them are sparse: only the pages that a test writes or reads take up space.
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
# Column 0 has two values; column 1 has so many that column 2, with three, begins past the limit.
POINTERS = np.array([0, 2, LIMIT + 1, LIMIT + 4])
CELLS = [(0, 1, 0.5), (1, 3, 2.0), (LIMIT + 1, 0, 0.25), (LIMIT + 2, 1, 1.0), (LIMIT + 3, 2, -3.0)]
COLUMNS, WEIGHTS = np.array([0, 2], np.int32), np.array([4.0, 2.0], np.float32)
SUMS = [0.5, 4.0, -6.0, 8.0]
"""The weighted sums of columns 0 and 2 for each row."""


def sparse_file(path: Path, dtype: type[np.generic]) -> NDArray[Any]:
    """Return an array of zeros in a file, as long as the pointers require."""
    mapped: NDArray[Any] = np.memmap(path, dtype, "w+", shape=(int(POINTERS[-1]),)).view(np.ndarray)
    return mapped


@pytest.fixture
def matrix(tmp_path: Path) -> ColumnMatrix:
    """A column-major matrix with values in columns 0 and 2, and zeros in column 1."""
    made = csc_array((ROWS, 3), dtype=np.float32)
    made.indptr = POINTERS
    made.indices = sparse_file(tmp_path / "rows", np.int64)
    made.data = sparse_file(tmp_path / "values", np.float32)
    for place, row, value in CELLS:
        made.indices[place], made.data[place] = row, value
    return made


def test_columns_beyond_the_limit_are_summed_correctly(matrix: ColumnMatrix) -> None:
    """A column that begins beyond 2³¹ values is summed from the right position."""
    assert column_sums(matrix, COLUMNS, WEIGHTS).tolist() == SUMS


def test_the_trainer_sums_columns_beyond_the_limit_correctly(
    matrix: ColumnMatrix, tmp_path: Path
) -> None:
    """The compiled loop over co-ratings reads the same cells."""
    running = np.zeros((ROWS, 4), np.float32)
    others, squares = matrix.data, sparse_file(tmp_path / "squares", np.float32)
    for place, _, value in CELLS:
        squares[place] = value * value
    neighbourhoods._add(
        matrix.indptr,
        matrix.indices,
        others,
        squares,
        COLUMNS,
        WEIGHTS,
        np.square(WEIGHTS),
        running,
    )
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
    """Pointers beyond the values are refused even if their low 32 bits would fit."""
    with pytest.raises(ValueError, match="index"):
        csr_matrix(
            np.array([0, 1, last]), np.array([0, 1], np.int32), np.ones(2, np.float32), width=2
        )


def test_matrices_below_the_limit_share_the_arrays() -> None:
    """If int32 suffices, neither the columns nor the values are copied."""
    indices, values = np.array([0, 1], np.int32), np.ones(2, np.float32)
    matrix = csr_matrix(np.array([0, 1, 2]), indices, values, width=2)
    assert matrix.indptr.dtype == matrix.indices.dtype == np.int32
    assert np.shares_memory(matrix.indices, indices)
    assert np.shares_memory(matrix.data, values)


@pytest.mark.parametrize(("count", "dtype"), [(LIMIT - 1, np.int32), (LIMIT, np.int64)])
def test_positions_use_64_bits_only_for_long_arrays(count: int, dtype: type[np.integer]) -> None:
    """Positions in an array use 64 bits if 32 bits cannot represent all of them."""
    assert position_dtype(count) is dtype
    assert np.iinfo(position_dtype(count)).max >= count
