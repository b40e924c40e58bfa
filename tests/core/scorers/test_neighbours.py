"""Similarities from co-ratings, and the selection of nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marquee_core.arrays import Float32, Int32, save_array
from marquee_core.errors import ArtifactError
from marquee_core.scorers.neighbours import (
    CommonSums,
    CoRatings,
    NeighbourConfig,
    Neighbours,
    nearest,
)
from marquee_core.scorers.packed_sums import integers_to_weights, weights_to_integers
from marquee_core.scorers.sparse import (
    column_sums,
    csr_matrix,
)
from marquee_trainer.models.neighbours import neighbourhoods
from marquee_trainer.models.neighbours.neighbourhoods import all_neighbours

CONFIG = NeighbourConfig(neighbours=3, shrinkage=2.0, overlap_power=1.5, damping=0.1)
# Multiples of 1/4 make squares and sums exact, so an undefined correlation is exactly 0/0.
RESIDUALS = st.integers(-8, 8).map(lambda step: step / 4)
FIELDS = ("rows", "products", "squares", "vector_squares", "counts")
ANY = st.floats(-4, 4, width=32)


def co_ratings(dense: Float32, rated: np.ndarray) -> CoRatings:
    """Return the co-ratings of a dense matrix with a mask of rated cells."""
    rows, columns = np.nonzero(rated)
    indptr = np.concatenate([[0], np.cumsum(rated.sum(axis=1))]).astype(np.int64)
    values = dense[rows, columns].astype(np.float32)
    return CoRatings.of(csr_matrix(indptr, columns.astype(np.int32), values, rated.shape[1]))


def size_of(columns: Int32) -> Float32:
    """Return the number of columns of a vector, in the form that `similarities` takes."""
    return np.array([len(columns)], np.float32)


def direct_correlation(x: Float32, y: Float32, both: np.ndarray) -> float:
    """Return the Pearson correlation over the common columns, without centring."""
    scale = np.sqrt(float((x[both] ** 2).sum()) * float((y[both] ** 2).sum()))
    return float((x[both] * y[both]).sum()) / scale if scale > 0 else 0.0


@given(
    arrays(np.float64, (5, 7), elements=RESIDUALS),
    arrays(np.bool_, (5, 7)),
    st.sets(st.integers(0, 6)),
    arrays(np.float64, 7, elements=RESIDUALS),
)
def test_sums_of_columns_equal_those_of_a_slice(
    dense: np.ndarray, given_: np.ndarray, chosen: set[int], weights: np.ndarray
) -> None:
    """The sums are correct for any columns: empty, adjacent, the first, the last, or none."""
    matrix = co_ratings(dense, given_).columns
    columns = np.array(sorted(chosen), dtype=np.int32)
    weights = weights[columns].astype(np.float32)
    part = matrix[:, columns]
    assert column_sums(matrix, columns, weights).tolist() == (part @ weights).tolist()
    part.data = np.ones_like(part.data)
    ones = np.ones_like(matrix.data)
    assert column_sums(matrix, columns, weights, ones).tolist() == (part @ weights).tolist()


@given(arrays(np.float64, (5, 7), elements=RESIDUALS), arrays(np.bool_, (5, 7)))
def test_similarities_equal_the_direct_formula(dense: np.ndarray, rated: np.ndarray) -> None:
    """Positive correlations are weighted by shrinkage and overlap as documented."""
    ratings = co_ratings(dense, rated)
    for one in range(5):
        columns, values = ratings.row(one)
        sums = ratings.sums(columns, values)
        similarities = ratings.similarities(size_of(columns), sums, CONFIG)
        counts = dict(zip(sums.rows.tolist(), sums.counts.tolist(), strict=True))
        found = dict(zip(sums.rows.tolist(), similarities.tolist(), strict=True))
        assert list(found) == sorted(found)
        for other in range(5):
            both = rated[one] & rated[other]
            n, union = both.sum(), (rated[one] | rated[other]).sum()
            expected = max(0.0, direct_correlation(dense[one], dense[other], both))
            expected *= n / (n + 2.0) * (n / max(union, 1)) ** 1.5
            assert found.get(other, 0.0) == pytest.approx(expected, abs=1e-6)
            assert 0 < found.get(other, 1.0) <= 1.0
            assert counts.get(other, n) == n


def test_a_vector_without_columns_has_no_similarities() -> None:
    """An empty profile is similar to no row, and nothing is divided by 0."""
    ratings = co_ratings(np.ones((3, 4), np.float32), np.eye(3, 4, dtype=np.bool_))
    sums = ratings.sums(np.empty(0, np.int32), np.empty(0, np.float32))
    assert not len(sums.rows)
    assert not len(ratings.similarities(size_of(np.empty(0, np.int32)), sums, CONFIG))


def test_sums_of_many_columns_are_precise() -> None:
    """Counts are exact, and sums of squares do not overflow and are accurate to 1 %.

    This holds for common columns with small values, and for rows and vectors of different sizes.
    """
    random = np.random.default_rng(5)
    rated = random.random((12, 3_000)) < np.linspace(0.005, 1.0, 12)[:, None]
    dense = random.standard_normal(rated.shape).astype(np.float32)
    dense[:, ::7] *= 0.1
    dense[0] *= 1e-12
    dense[1] *= 1e12
    ratings = co_ratings(dense, rated)
    for row in range(12):
        columns, values = ratings.row(row)
        sums = ratings.sums(columns, values)
        both = rated[row] & rated[sums.rows]
        np.testing.assert_array_equal(sums.counts, both.sum(axis=1))
        squares = dense.astype(np.float64) ** 2
        np.testing.assert_allclose(sums.squares, (both * squares[sums.rows]).sum(axis=1), rtol=0.01)
        np.testing.assert_allclose(
            sums.vector_squares, (both * squares[row]).sum(axis=1), rtol=0.01
        )


@pytest.mark.parametrize("value", [np.nextafter(np.float32(1), np.float32(0)), 1.0, 1e-15])
def test_sums_of_squares_near_a_power_of_2_do_not_overflow(value: float) -> None:
    """Rounding up all squares of a row and of a vector leaves the packed sums in their bits."""
    ratings = co_ratings(np.full((2, 64), value, np.float32), np.ones((2, 64), np.bool_))
    columns, values = ratings.row(0)
    sums = ratings.sums(columns, values)
    total = 64 * float(value) ** 2
    np.testing.assert_array_equal(sums.counts, [64, 64])
    np.testing.assert_allclose(sums.squares, total, rtol=1e-4)
    np.testing.assert_allclose(sums.vector_squares, total, rtol=1e-4)


@given(arrays(np.float32, 40, elements=st.floats(0, 1, width=32)), arrays(np.bool_, 40))
def test_sums_of_weights_as_integers_equal_the_sums_of_weights(
    weights: Float32, rated: np.ndarray
) -> None:
    """The squares that are packed with the ones do not affect the sums of weights."""
    ratings = co_ratings(np.full((40, 1), 3.0, np.float32), rated[:, None])
    entries = ratings.columns.indices
    sums = np.array([weights_to_integers(weights[entries]) @ ratings.packed], np.uint64)
    assert integers_to_weights(sums)[0] == pytest.approx(weights[rated].sum(), abs=1e-5)


@pytest.mark.parametrize("cells", [1, 3 * 70, 70 * 70])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.float32, (70, 7), elements=ANY), arrays(np.bool_, (70, 7)))
def test_rows_compared_together_have_the_sums_of_single_rows(
    monkeypatch: pytest.MonkeyPatch, cells: int, dense: Float32, rated: np.ndarray
) -> None:
    """A row and a vector of the same values have the same neighbours, to the last bit.

    This holds in blocks of one row, of three rows, and of all rows.
    """
    monkeypatch.setattr(neighbourhoods, "_BLOCK_CELLS", cells)
    monkeypatch.setattr(neighbourhoods, "_BLOCKS_PER_CORE", 1)
    monkeypatch.setattr(neighbourhoods, "usable_cores", lambda: 1)
    ratings = co_ratings(dense, rated)
    found: dict[int, tuple[np.ndarray, ...]] = {}

    def plain_similarities(sizes: Float32, sums: CommonSums) -> Float32:
        # The squares of tiny values are 0.
        with np.errstate(divide="ignore"):
            return ratings.similarities(sizes, sums, CONFIG)

    def similarities(owners: Int32, sums: CommonSums) -> Float32:
        for row in np.unique(owners).tolist():
            here = owners == row
            found[row] = tuple(getattr(sums, name)[here] for name in FIELDS)
        return plain_similarities(ratings.counts[owners], sums)

    neighbours = all_neighbours(ratings, similarities, CONFIG.neighbours)
    assert len(neighbours) == 70
    for row in range(70):
        columns, values = ratings.row(row)
        single = ratings.sums(columns, values)
        assert len(single.rows) == len(found.get(row, [[]])[0])
        for name, value in zip(FIELDS, found.get(row, ()), strict=False):
            np.testing.assert_array_equal(value, getattr(single, name))
        expected = plain_similarities(size_of(columns), single)
        for actual, wanted in zip(
            neighbours.row(row), nearest(single.rows, expected, CONFIG.neighbours), strict=True
        ):
            np.testing.assert_array_equal(actual, wanted)


@given(arrays(np.float32, 12, elements=st.integers(0, 4).map(lambda n: n / 4)), st.integers(1, 14))
def test_nearest_equals_a_stable_sort(similarities: Float32, count: int) -> None:
    """The highest similarities are selected, ties go to the first, and zeros are excluded."""
    rows = np.arange(0, 36, 3, dtype=np.int32)
    order = np.argsort(-similarities, kind="stable")[:count]
    expected = np.sort(order[similarities[order] > 0])
    found, values = nearest(rows, similarities, count)
    np.testing.assert_array_equal(found, rows[expected])
    np.testing.assert_array_equal(values, similarities[expected])


def test_nearest_selects_the_best_positive_similarities_in_ascending_order() -> None:
    """Ties go to the first row, and a similarity that was rounded to 0 is not selected."""
    rows = np.array([1, 3, 4, 8, 9], np.int32)
    similarities = np.array([0.2, 0.5, 0.7, 0.5, 0.0], np.float32)
    indices, values = nearest(rows, similarities, 2)
    assert indices.tolist() == [3, 4]
    assert values.tolist() == pytest.approx([0.5, 0.7])
    assert nearest(rows, similarities, 9)[0].tolist() == [1, 3, 4, 8]


def toy_neighbours() -> Neighbours:
    """Return the neighbours of three rows, the second of which has none."""
    empty = np.empty(0, np.int32), np.empty(0, np.float32)
    return Neighbours.of(
        [
            (np.array([1, 2], np.int32), np.array([0.5, 1.0], np.float32)),
            empty,
            (np.array([0], np.int32), np.array([0.25], np.float32)),
        ]
    )


def test_saved_neighbours_are_loaded_unchanged(tmp_path: Path) -> None:
    """Loading returns the neighbours that were saved."""
    toy_neighbours().save(tmp_path)
    loaded = Neighbours.load(tmp_path, 3)
    assert len(loaded) == 3
    assert [loaded.row(row)[0].tolist() for row in range(3)] == [[1, 2], [], [0]]
    assert [loaded.row(row)[1].tolist() for row in range(3)] == [[0.5, 1.0], [], [0.25]]
    assert loaded.matrix().toarray().tolist() == [[0, 0.5, 1], [0, 0, 0], [0.25, 0, 0]]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("neighbour_indptr.npy", np.array([0, 2, 1, 3])),
        ("neighbour_indptr.npy", np.array([1, 2, 2, 3])),
        ("neighbour_indptr.npy", np.array([0, 2, 2, 4])),
        ("neighbour_indptr.npy", np.array([0, 2, 3])),
        ("neighbours.npy", np.array([1, 3, 0], np.int32)),
        ("neighbours.npy", np.array([1, -1, 0], np.int32)),
        ("neighbours.npy", np.array([1, 2, 0], np.int64)),
        ("similarities.npy", np.array([0.5, 1.5, 0.25], np.float32)),
        ("similarities.npy", np.array([0.5, 0.0, 0.25], np.float32)),
        ("similarities.npy", np.array([0.5, 1.0], np.float32)),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, array: np.ndarray
) -> None:
    """Loading fails if an array is damaged or has the wrong shape or type."""
    toy_neighbours().save(tmp_path)
    save_array(tmp_path / name, array)
    with pytest.raises(ArtifactError, match="npy"):
        Neighbours.load(tmp_path, 3)


def test_a_similarity_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    """Loading fails if a file that `save_array` did not write contains NaN."""
    toy_neighbours().save(tmp_path)
    np.save(tmp_path / "similarities.npy", np.array([0.5, np.nan, 0.25], np.float32))
    with pytest.raises(ArtifactError, match=r"similarities\.npy"):
        Neighbours.load(tmp_path, 3)


@pytest.mark.parametrize(
    "values", [(0, 1, 1, 1), (1, -1, 1, 1), (1, 1, float("nan"), 1), (1, 1, 1, 0)]
)
def test_an_invalid_configuration_is_refused(values: tuple[int, float, float, float]) -> None:
    """A configuration with a value out of range cannot be created."""
    with pytest.raises(ValueError, match=r"is not (an integer|a finite number) >"):
        NeighbourConfig(*values)
