"""Rows without a rating."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.frames import from_frame
from marquee_trainer.data.missing import is_missing, parse_missing_values
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings
from toy.rating_formats import read_back

SKIP = ReadOptions(on_missing="skip")
LACKING = "user,item,rating\nann,x,3\nbob,y,\ncid,z,NaN\ndee,x,4\neve,y, null \nfay,z,5\n"


def write(folder: Path, text: str, name: str = "x.csv") -> str:
    """Write a file of ratings."""
    (folder / name).write_text(text)
    return str(folder / name)


def test_rows_without_a_rating_are_an_error_that_names_the_option(tmp_path: Path) -> None:
    """By default each of them is named by its line."""
    with pytest.raises(RatingsError, match=r"x.csv:3: column rating: '' (.|\n)*--on-missing skip"):
        load_ratings(write(tmp_path, LACKING))


def test_rows_without_a_rating_are_left_out_and_counted(tmp_path: Path) -> None:
    """However a file writes that a rating is missing; nobody else's row is lost."""
    found = load_ratings(write(tmp_path, LACKING), options=SKIP)
    assert [row[:3] for row in read_back(found.dataset)] == [
        ("ann", "x", 3.0),
        ("dee", "x", 4.0),
        ("fay", "z", 5.0),
    ]
    assert found.interpretation is not None
    assert "3 of 6 rows have no rating and are left out" in found.interpretation.notes


def test_later_errors_name_the_lines_of_the_file(tmp_path: Path) -> None:
    """Rows that were left out count as lines."""
    source = write(tmp_path, LACKING + "gus,x,five\n")
    with pytest.raises(RatingsError, match=r"x\.csv:8: column rating: 'five' is not a rating"):
        load_ratings(source, options=SKIP)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("user,item,rating\nann,x,3\n,y,4\n", "1 of 2 rows have no user and are left out"),
        ("user,item,rating\nann,x,3\nbob,,4\n", "1 of 2 rows have no item and are left out"),
        (
            "user,item,rating,date\nann,x,3,2024-01-02\nbob,y,4,\n",
            "1 of 2 rows have no time and are left out",
        ),
    ],
)
def test_rows_without_an_id_or_a_time_are_left_out(tmp_path: Path, text: str, note: str) -> None:
    """By default they are an error that names the option."""
    source = write(tmp_path, text)
    with pytest.raises(RatingsError, match=r"--on-missing skip leaves out the rows without an? "):
        load_ratings(source)
    found = load_ratings(source, options=SKIP)
    assert found.dataset.user_ids.ids(range(1)) == ["ann"]
    assert len(found.dataset) == 1
    assert note in found.interpretation.notes


def test_a_column_without_times_loses_no_row(tmp_path: Path) -> None:
    """The ratings then have no times."""
    source = write(tmp_path, "user,item,rating,date\nann,x,3,\nbob,y,4,\n")
    assert len(load_ratings(source, options=SKIP).dataset) == 2


@pytest.mark.parametrize("rating", ["-1", "-1.0", "-1.00 "])
def test_values_that_mean_missing_are_left_out(tmp_path: Path, rating: str) -> None:
    """They are numbers, however the file writes them, and a note counts them."""
    rows = "".join(f"u{n},i{n},{n % 10 + 1}\n" for n in range(30))
    source = write(tmp_path, f"user,item,rating\nann,x,{rating}\n{rows}")
    assert any("--missing-values -1" in note for note in load_ratings(source).interpretation.notes)
    found = load_ratings(source, options=ReadOptions(missing_values=("-1",)))
    assert found.dataset.scale.low == 1
    assert "1 of 31 rows have a rating of -1 and are left out" in found.interpretation.notes


def test_negative_counts_can_be_left_out(tmp_path: Path) -> None:
    """They are an error that names the option, because a return is no purchase."""
    source = write(tmp_path, "user,item,quantity\nann,x,3\nbob,y,-1\ncid,x,-40\ndee,x,1\n")
    with pytest.raises(RatingsError, match="--missing-values negative leaves out rows"):
        load_ratings(source)
    options = ReadOptions(missing_values=parse_missing_values("negative"))
    found = load_ratings(source, options=options)
    assert len(found.dataset) == 2
    assert "2 of 4 rows have a count below 0 and are left out" in found.interpretation.notes


def test_values_that_mean_missing_are_numbers() -> None:
    """Any other text is refused, and so is the option where there are no ratings."""
    assert parse_missing_values(" 0, −1,negative") == ("0", "-1", "negative")
    with pytest.raises(RatingsError, match="'none' is neither a number nor negative"):
        parse_missing_values("0,none")
    frame = pl.DataFrame({"user": ["a"], "item": ["x"]})
    with pytest.raises(RatingsError, match="requires a column of ratings or counts"):
        from_frame(frame, options=ReadOptions(missing_values=("0",)))


def test_missing_counts_are_left_out_of_implicit_feedback(tmp_path: Path) -> None:
    """The same holds for JSON lines, whose missing values are null."""
    rows = [{"user": "ann", "item": f"i{n}", "plays": n or None} for n in range(4)]
    source = write(tmp_path, "\n".join(map(json.dumps, rows)), "plays.jsonl")
    assert len(load_ratings(source, options=SKIP).dataset.ratings) == 3


def test_a_frame_of_floats_may_contain_nan() -> None:
    """Frames of pandas mark missing ratings by NaN."""
    frame = pl.DataFrame(
        {"user": ["a", "b", "c"], "item": ["x", "y", "x"], "rating": [1.0, float("nan"), 2.5]}
    )
    dataset, _ = from_frame(frame, options=SKIP)
    assert len(dataset.ratings) == 2


def test_a_table_without_any_rating_is_an_error(tmp_path: Path) -> None:
    """Nothing can be learned from it."""
    with pytest.raises(RatingsError):
        load_ratings(write(tmp_path, "user,item,rating\nann,x,\nbob,y,\n"), options=SKIP)


def test_another_word_is_refused(tmp_path: Path) -> None:
    """A misspelt option does not act as the default."""
    with pytest.raises(ValueError, match="on_missing='drop'"):
        load_ratings(write(tmp_path, LACKING), options=ReadOptions(on_missing="drop"))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_no_number_counts_as_missing(numbers: list[float]) -> None:
    """Neither as a number nor as text."""
    assert not is_missing(pl.Series(numbers, dtype=pl.Float32)).any()
    assert not is_missing(pl.Series([*map(str, numbers)], dtype=pl.String)).any()
