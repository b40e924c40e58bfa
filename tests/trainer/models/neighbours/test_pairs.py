"""Comparing each pair of rows once, and keeping the nearest of what is offered in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marquee_core.arrays import Float32, Int32
from marquee_core.scorers.neighbours import CommonSums, CoRatings, NeighbourConfig, Neighbours
from marquee_core.scorers.sparse import csr_matrix
from marquee_trainer.models.neighbours import neighbourhoods
from marquee_trainer.models.neighbours.neighbourhoods import all_neighbours
from marquee_trainer.models.neighbours.pairs import NearestSoFar

CONFIG = NeighbourConfig(neighbours=3, shrinkage=2.0, overlap_power=1.5, damping=0.1)
ROWS, COLUMNS = 40, 7
# Few different values give many ties. Their squares and sums are exact, so that similarities are
# the same to the last bit whichever row of a pair they are computed from.
STEPS = st.integers(-8, 8).map(lambda step: step / 4)


def residuals(dense: np.ndarray, rated: np.ndarray) -> CoRatings:
    """Return the co-ratings of a dense matrix with a mask of rated cells."""
    rows, columns = np.nonzero(rated)
    indptr = np.concatenate([[0], np.cumsum(rated.sum(axis=1))]).astype(np.int64)
    values = dense[rows, columns].astype(np.float32)
    return CoRatings.of(csr_matrix(indptr, columns.astype(np.int32), values, rated.shape[1]))


def assert_same(found: Neighbours, expected: Neighbours) -> None:
    """Assert that all arrays are equal."""
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


@pytest.mark.parametrize("cells", [1, 3 * ROWS, ROWS * ROWS])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays(np.float64, (ROWS, COLUMNS), elements=STEPS),
    arrays(np.bool_, (ROWS, COLUMNS)),
    st.sampled_from([1, 3, ROWS, 2 * ROWS]),
)
def test_each_pair_compared_once_gives_the_neighbours_of_all_comparisons(
    monkeypatch: pytest.MonkeyPatch, cells: int, dense: np.ndarray, rated: np.ndarray, count: int
) -> None:
    """Symmetric similarities have the same neighbours, ties included, however rows are blocked.

    Several threads process blocks of one row, of three rows, and of a quarter of the rows.
    """
    monkeypatch.setattr(neighbourhoods, "_BLOCK_CELLS", cells)
    monkeypatch.setattr(neighbourhoods, "_BLOCKS_PER_CORE", 1)
    monkeypatch.setattr(neighbourhoods, "usable_cores", lambda: 4)
    ratings = residuals(dense, rated)

    def similarities(owners: Int32, sums: CommonSums) -> Float32:
        values = ratings.similarities(ratings.counts[owners], sums, CONFIG)
        values[sums.rows == owners] = 0.0
        return values

    expected = all_neighbours(ratings, similarities, count)
    assert_same(all_neighbours(ratings, similarities, count, symmetric=True), expected)


def test_a_pair_that_must_not_be_neighbours_is_left_out() -> None:
    """A similarity of 0 leaves both rows without a neighbour."""
    ratings = residuals(np.ones((2, 3)), np.ones((2, 3), np.bool_))
    compared: list[tuple[int, int]] = []

    def none(owners: Int32, sums: CommonSums) -> Float32:
        compared.extend(zip(owners.tolist(), sums.rows.tolist(), strict=True))
        return np.zeros(len(owners), np.float32)

    assert len(all_neighbours(ratings, none, 5, symmetric=True).indices) == 0
    assert compared == [(1, 0)]


@given(
    arrays(np.float32, ROWS * (ROWS - 1) // 2, elements=st.integers(0, 20).map(lambda n: n / 20)),
    st.permutations(range(ROWS)),
    st.integers(1, ROWS),
)
def test_the_nearest_do_not_depend_on_the_order_of_offers(
    similarities: Float32, order: list[int], count: int
) -> None:
    """Blocks offered in any order leave the nearest rows; of equally near ones, the lower."""
    owners, others = (part.astype(np.int32) for part in np.tril_indices(ROWS, -1))
    found = NearestSoFar(ROWS, count)
    for row in order:
        here = owners == row
        found.offer_pairs(row, row + 1, owners[here], others[here], similarities[here])
    matrix = np.zeros((ROWS, ROWS), np.float32)
    matrix[owners, others] = matrix[others, owners] = similarities
    nearest = np.argsort(-matrix, axis=1, kind="stable")[:, :count]
    expected = []
    for values, places in zip(matrix, nearest, strict=True):
        kept = np.sort(places[values[places] > 0]).astype(np.int32)
        expected.append((kept, values[kept]))
    assert_same(found.neighbours(), Neighbours.of(expected))
