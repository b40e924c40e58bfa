"""How columns are chosen, and how their values are converted."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.data.columns import choose_columns, columns_by_order, parse_columns, recognise
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.values import parse_rating_column, parse_time_column


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["userId", "movieId", "rating", "timestamp"], "user item rating time"),
        (["user_id", "business_id", "stars", "date"], "user item rating time"),
        (["ts", "customer", "SKU", "quantity"], "time user item count"),
        (["rating", "User", "Film Title", "movie"], "rating user - item"),
        (["user", "title", "item_id"], "user - item"),
        (["visitorid", "timestamp", "event", "itemid"], "user time - item"),
        (["Rater", "Film Name", "Rating"], "user item rating"),
    ],
)
def test_common_names_are_recognised(header: list[str], expected: str) -> None:
    """Letter case, spaces and punctuation are ignored, and ids are preferred to names."""
    roles = {place: role for role, place in recognise(header).items()}
    assert [roles.get(place, "-") for place in range(len(header))] == expected.split()


def test_ratings_are_preferred_to_counts() -> None:
    """A table with both contains explicit feedback."""
    choice = choose_columns(["user", "item", "views", "rating"], {}, "x.csv")
    assert choice.names == {"user": "user", "item": "item", "rating": "rating"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Person ID,Product,My Score (of 10),Date Rated,Junk", "user item rating time -"),
        ("user,item,average rating,release date", "user item - -"),
        ("user,item,score of plot,score of music", "user item - -"),
        ("user,item,plays,album score", "user item count -"),
        ("user,item,date score given", "user item time"),
        ("user,item,rating,critic score", "user item rating -"),
    ],
)
def test_ratings_and_times_are_recognised_in_longer_names(header: str, expected: str) -> None:
    """Words inside longer names identify ratings and times, unless they describe the item."""
    names = header.split(",")
    places = choose_columns(names, {}, "x.csv").positions
    roles = {place: role for role, place in places.items()}
    assert [roles.get(place, "-") for place in range(len(names))] == expected.split()


def test_unused_columns_are_listed() -> None:
    """A forgotten column of ratings is noticed, and a complete choice gets no advice."""
    dropped = choose_columns(["user", "item", "Punkte", "Tag"], {}, "x.csv")
    assert dropped.unused_note() == (
        "columns not used: Punkte, Tag; name them with --columns user=…,item=…,rating=…,time=…"
    )
    complete = choose_columns(["user", "item", "rating", "time", "junk"], {}, "x.csv")
    assert complete.unused_note() == "columns not used: junk"
    assert not choose_columns(["user", "item"], {}, "x.csv").unused_note()


def test_a_table_without_header_has_the_usual_order() -> None:
    """A large number in the third of three columns is a time rather than a rating."""
    assert list(columns_by_order(4, ["a", "b", "4", "5"]).positions) == [
        "user",
        "item",
        "rating",
        "time",
    ]
    assert list(columns_by_order(3, ["a", "b", "1112486027"]).positions) == ["user", "item", "time"]
    assert list(columns_by_order(3, ["a", "b", "4"]).positions) == ["user", "item", "rating"]


@pytest.mark.parametrize("text", ["user", "user=", "who=x", "user=a,user=b,item=c", "user=a"])
def test_malformed_choices_of_columns_are_refused(text: str) -> None:
    """Each role must be known and given once, and user and item are required."""
    with pytest.raises(RatingsError, match="--columns"):
        parse_columns(text)


def test_choices_of_columns_are_parsed() -> None:
    """Columns are given by name or position, with optional spaces."""
    assert parse_columns("user=User ID, item=2") == {"user": "User ID", "item": "2"}
    assert parse_columns("") == {}


@given(
    st.lists(
        st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(
            lambda moment: moment.replace(tzinfo=UTC, microsecond=0)
        ),
        min_size=1,
    ),
    st.sampled_from(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%s"]),
)
def test_times_are_read_as_they_were_written(moments: list[datetime], form: str) -> None:
    """All forms result in the same seconds."""
    seconds = [int(moment.timestamp()) for moment in moments]
    texts = [
        str(second) if form == "%s" else moment.strftime(form)
        for moment, second in zip(moments, seconds, strict=True)
    ]
    times = parse_time_column(pl.Series(texts))
    assert times is not None
    assert times.bad is None
    if form != "%s" or min(seconds) > 30_000_000:
        assert times.values.array.tolist() == seconds


def test_the_order_of_day_and_month_is_chosen_per_column() -> None:
    """A single value that fits only one order decides for the whole column."""
    for texts, form in (
        (["1/2/2020", "13/2/2020"], "dates, day first"),
        (["1/2/2020", "2/13/2020"], "dates, month first"),
    ):
        times = parse_time_column(pl.Series(texts))
        assert times is not None
        assert times.form == form
        assert times.bad is None
        first = datetime.fromtimestamp(int(times.values.array[0]), UTC)
        assert (first.month, first.day) == ((2, 1) if "day first" in form else (1, 2))


def test_dates_written_as_numbers_are_read() -> None:
    """Numbers of eight digits that are all dates are not read as seconds."""
    times = parse_time_column(pl.Series(["20200102", "20200103"]))
    assert times is not None
    assert (times.values.array.tolist(), times.form) == (
        [1577923200, 1578009600],
        "dates as numbers",
    )


def test_empty_times_are_absent() -> None:
    """A column without any value is not a column of times."""
    assert parse_time_column(pl.Series([None, None], dtype=pl.String)) is None


def test_words_and_booleans_are_ratings() -> None:
    """Likes become 1 and dislikes become 0."""
    assert parse_rating_column(pl.Series(["Like", "dislike"])).values.array.tolist() == [1, 0]
    assert parse_rating_column(pl.Series([True, False])).values.array.tolist() == [1, 0]
