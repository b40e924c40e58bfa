"""The data set: the order of its rows, its fingerprint, and which ratings are refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.ids import IdColumn, distinct
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.sorting import sort_rows
from marquee_trainer.data.source import load_ratings

# Short ids are compared as integers and long ones as text; both must be in byte order.
ids = st.one_of(
    st.integers(1, 30).map(str),
    st.text("abcXYZ019-é", min_size=1, max_size=5),
    st.text("ab9", min_size=7, max_size=12),
)


@dataclass(frozen=True)
class Row:
    """A rating as a row of a source."""

    user: str
    item: str
    stars: float
    seconds: int


rows_of_ratings = st.lists(
    st.builds(
        Row,
        ids,
        ids,
        st.integers(1, 10).map(lambda halves: halves / 2),
        st.integers(0, 2_000_000_000),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda row: (row.user, row.item),
)


def dataset_of(rows: list[Row], metadata: dict[str, ItemMetadata] | None = None) -> RatingsDataset:
    """Return a data set of rows, in their order."""
    return RatingsDataset.of(
        [row.user for row in rows],
        [row.item for row in rows],
        np.array([row.stars for row in rows], dtype=np.float32),
        np.array([row.seconds for row in rows], dtype=np.int64),
        metadata or {},
        "test",
    )


def rows_in(dataset: RatingsDataset) -> list[Row]:
    """Return the rows of a data set in the order of its arrays."""
    return [
        Row(user, item, float(stars), int(seconds))
        for user, item, stars, seconds in zip(
            dataset.user_ids.ids(dataset.users),
            dataset.catalogue.items.ids(dataset.items),
            dataset.ratings,
            dataset.timestamps,
            strict=True,
        )
    ]


@settings(deadline=None)
@given(rows_of_ratings)
def test_a_data_set_contains_all_rows_and_their_order_in_the_source(rows: list[Row]) -> None:
    """No row is lost or changed, and `file_order` gives the position of each row in the source."""
    dataset = dataset_of(rows)
    kept = rows_in(dataset)
    assert [kept[place] for place in dataset.file_order] == rows
    assert kept == sorted(rows, key=lambda row: (row.user.encode(), row.item.encode()))


@settings(deadline=None)
@given(rows_of_ratings, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: list[Row], random: object) -> None:
    """Shuffled rows result in the same arrays, ids and fingerprint."""
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = dataset_of(rows), dataset_of(shuffled)
    for name in ("users", "items", "ratings", "timestamps"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert rows_in(one) == rows_in(other)
    assert one.fingerprint() == other.fingerprint()


@settings(deadline=None)
@given(rows_of_ratings, st.data())
def test_a_fingerprint_changes_with_the_data(rows: list[Row], data: st.DataObject) -> None:
    """Another user, item, rating or time, or a missing row, changes the fingerprint."""
    place = data.draw(st.integers(0, len(rows) - 1))
    row = rows[place]
    changed = data.draw(
        st.sampled_from(
            [
                [Row("someone else", row.item, row.stars, row.seconds)],
                [Row(row.user, "something else", row.stars, row.seconds)],
                [Row(row.user, row.item, row.stars % 5 + 0.5, row.seconds)],
                [Row(row.user, row.item, row.stars, row.seconds + 1)],
                [] if len(rows) > 1 else [Row("a", "new one", 1, 1), row],
            ]
        )
    )
    others = rows[:place] + changed + rows[place + 1 :]
    assert dataset_of(others).fingerprint() != dataset_of(rows).fingerprint()


@settings(deadline=None)
@given(rows_of_ratings, st.data())
def test_the_fingerprint_of_a_subset_is_that_of_its_own_data_set(
    rows: list[Row], data: st.DataObject
) -> None:
    """The fingerprint depends neither on other rows nor on the order of the rows."""
    dataset = dataset_of(rows)
    part = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True).map(np.array))
    subset = dataset_of([rows_in(dataset)[place] for place in part])
    assert dataset.fingerprint(part) == subset.fingerprint()


@settings(deadline=None)
@given(rows_of_ratings)
def test_ratings_are_found_by_user_and_by_item(rows: list[Row]) -> None:
    """The lookup and both matrices agree with the rows."""
    dataset = dataset_of(rows)
    stars = {(row.user, row.item): row.stars for row in rows}
    for user, name in enumerate(dataset.user_ids.ids(range(len(dataset.user_ids)))):
        for item, title in enumerate(dataset.catalogue.items.ids(range(len(dataset.catalogue)))):
            assert dataset.rating(user, item) == stars.get((name, title))
            seen = (name, title) in stars
            assert (item in dataset.by_user.seen(user)) == seen
            assert (user in dataset.by_item.seen(item)) == seen


@settings(deadline=None)
@given(rows_of_ratings, st.data())
def test_a_repeated_pair_is_an_error_that_names_both_rows(
    rows: list[Row], data: st.DataObject
) -> None:
    """By default, no rating is dropped silently, even if both agree."""
    first = data.draw(st.integers(0, len(rows) - 1))
    again = Row(rows[first].user, rows[first].item, 3.0, 1)
    with pytest.raises(RatingsError) as caught:
        dataset_of([*rows, again])
    expected = (
        f"row {len(rows) + 1}: user {again.user} rates item {again.item} again, "
        f"after row {first + 1}"
    )
    assert "repeated ratings (1)" in str(caught.value)
    assert expected in str(caught.value)


def test_no_ratings_are_an_error() -> None:
    """The error names the empty source."""
    with pytest.raises(RatingsError, match="test: there are no ratings"):
        dataset_of([])


def test_a_catalogue_contains_only_the_rated_items() -> None:
    """Unrated items are omitted by default, and items without metadata have their id as title."""
    metadata = {
        "10": ItemMetadata("Heat", 1995, ("Crime", "Action")),
        "9": ItemMetadata("Unrated", 1990),
    }
    catalogue = dataset_of([Row("u", "10", 4, 1), Row("u", "2", 3, 2)], metadata).catalogue
    assert catalogue.items.ids([0, 1]) == ["10", "2"]
    assert [catalogue.title(item) for item in (0, 1)] == ["Heat", "2"]
    assert catalogue.years.tolist() == [1995, 0]
    assert [catalogue.item_genres(item) for item in (0, 1)] == [("Action", "Crime"), ()]


@pytest.mark.parametrize(
    ("stars", "scale"),
    [
        ([1, 3, 5], RatingScale(1.0, 5.0, 1.0)),
        ([1, 3.5, 5], RatingScale(0.5, 5.0, 0.5)),
        ([0.5], RatingScale(0.5, 5.0, 0.5)),
    ],
)
def test_the_scale_of_stars_is_found(stars: list[float], scale: RatingScale) -> None:
    """A single half star implies MovieLens' newer scale."""
    rows = [Row("u", str(item), value, item) for item, value in enumerate(stars)]
    assert dataset_of(rows).scale == scale


@settings(deadline=None)
@given(st.lists(ids, min_size=1, max_size=50))
def test_distinct_names_equal_those_of_numpy(names: list[str]) -> None:
    """Comparing short names as integers, and using polars, both agree with `numpy.unique`."""
    encoded = np.array([name.encode() for name in names], dtype=np.bytes_)
    expected_names, expected_index = np.unique(encoded, return_inverse=True)
    found_names, found_index = distinct(encoded)
    np.testing.assert_array_equal(found_names, expected_names)
    np.testing.assert_array_equal(found_index, expected_index)
    column = IdColumn.of(names)
    np.testing.assert_array_equal(column.names, expected_names)
    np.testing.assert_array_equal(column.codes, expected_index)
    halves = [IdColumn.of(names[: len(names) // 2]), IdColumn.of(names[len(names) // 2 :])]
    np.testing.assert_array_equal(IdColumn.concatenated(halves).codes, expected_index)


@given(st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 3)), max_size=50))
def test_rows_are_sorted_as_numpy_does(pairs: list[tuple[int, int]]) -> None:
    """Rows are sorted by both columns, and equal rows keep their order."""
    first, second = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    for one, other in ((first, second), (second, first)):
        order = np.lexsort((other, one))
        found = sort_rows(one, other)
        np.testing.assert_array_equal(found.order, order)
        np.testing.assert_array_equal(found.first, one[order])
        np.testing.assert_array_equal(found.second, other[order])


def test_an_unknown_source_is_named() -> None:
    """The error for a misspelt source lists the kinds of sources."""
    with pytest.raises(RatingsError, match="'sampel' is neither `sample`, nor a config"):
        load_ratings("sampel")


def test_options_that_the_source_does_not_support_are_refused() -> None:
    """No option is ignored silently."""
    with pytest.raises(RatingsError, match="--train and --test require a GroupLens folder"):
        load_ratings("sample", train_file="u1.base", test_file="u1.test")
    with pytest.raises(RatingsError, match="--manual-dir requires a TensorFlow Datasets config"):
        load_ratings("sample", manual_dir="archives")
