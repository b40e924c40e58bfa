"""Reading columns as numbers and categories gives the same result as reading them as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_trainer.data import grouplens_ratings
from marquee_trainer.data.delimited import DelimitedFile
from marquee_trainer.data.files import DataFile
from marquee_trainer.data.grouplens import load_grouplens
from marquee_trainer.data.ids import all_valid, distinct, distinct_numbers, id_problem
from marquee_trainer.data.source import load_ratings

HEADER = "userId,movieId,rating,timestamp\n"
ROWS = "10,7,3.5,978300760\n9,7,4.0,978302109\n10,0,1,0\n"


def read(path: Path, content: str) -> list[Any] | None:
    """Return the types of the columns, after checking their values; None if read as text."""
    path.write_bytes(content.encode())
    table = DelimitedFile.open(DataFile(str(path)))
    frame = table.read_plain([0, 1, 2, 3], [0, 1, 3])
    if frame is None:
        return None
    texts = table.read([0, 1, 2, 3])
    assert frame.cast(texts.schema).equals(texts)
    return frame.dtypes


@pytest.mark.parametrize("content", [HEADER + ROWS, HEADER + ROWS.rstrip("\n"), ROWS])
def test_numbers_in_their_shortest_form_are_read_as_numbers(tmp_path: Path, content: str) -> None:
    """Files with and without a header, and without a final line end, are read as numbers."""
    found = read(tmp_path / "ratings.csv", content)
    assert found is not None
    assert [kind.is_integer() for kind in found] == [True, True, False, True]
    assert isinstance(found[2], pl.Enum)


def test_later_rows_may_differ_from_the_first_ones(tmp_path: Path) -> None:
    """Numbers beyond 32 bits and other texts of ratings are still read correctly."""
    later = "77777777777,7,4.25,5000000000\n"
    found = read(tmp_path / "ratings.csv", HEADER + ROWS * 2_000 + later)
    assert found == [pl.Int64, pl.Int64, pl.String, pl.Int64]


def test_text_ids_are_read_next_to_numbers(tmp_path: Path) -> None:
    """Each column has the type that its first rows allow."""
    rows = "".join(f"u{user},{user},{user % 5},{user}\n" for user in range(300))
    found = read(tmp_path / "ratings.csv", HEADER + rows)
    assert found is not None
    assert found[:2] == [pl.String, pl.Int32]


ODD_ROWS = """
07,7,3,9
+7,7,3,9
7, 7,3,9
"7",7,3,9
7,7,3,9.5
x,7,3,9
,7,3,9
7,7,"3",9
7,-0,3,9
7,7,3,99999999999999999999
7,7,3
7,7,3,9,1
"""


@pytest.mark.parametrize("row", [*ODD_ROWS.strip().split("\n"), ""])
def test_anything_else_is_read_as_text(tmp_path: Path, row: str) -> None:
    """A number would lose signs, leading zeros, spaces, quotes and other texts.

    If the first rows show them, a column may be read as text next to numbers.
    """
    assert read(tmp_path / "late.csv", HEADER + ROWS * 2_000 + row + "\n" + ROWS) is None
    read(tmp_path / "early.csv", HEADER + ROWS + row + "\n" + ROWS)


@pytest.mark.parametrize("row", ["010,7,3.5,1\n", "10,7,3.5,1\r\n"])
def test_a_missing_last_line_end_does_not_hide_extra_characters(tmp_path: Path, row: str) -> None:
    """A leading zero or a carriage return is noticed although the text has the expected length."""
    assert read(tmp_path / "ratings.csv", HEADER + ROWS * 2_000 + row + ROWS.rstrip("\n")) is None


def test_other_line_ends_are_read_as_text(tmp_path: Path) -> None:
    """A carriage return is not part of any value."""
    assert read(tmp_path / "ratings.csv", (HEADER + ROWS).replace("\n", "\r\n")) is None


def test_ratings_are_the_same_as_read_from_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, order, times and the fingerprint do not depend on how the file was read."""
    random = np.random.default_rng(0)
    cells = random.choice(40 * 30, 300, replace=False)
    lines = [
        f"{3 * (cell // 30)},{cell % 30 + 95},{random.integers(1, 6)},{random.integers(10**9)}"
        for cell in cells
    ]
    path = tmp_path / "ratings.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    numbers = load_ratings(str(path)).dataset
    monkeypatch.setattr(DelimitedFile, "read_plain", lambda *_: None)
    texts = load_ratings(str(path)).dataset
    assert numbers.fingerprint() == texts.fingerprint()
    np.testing.assert_array_equal(numbers.file_order, texts.file_order)
    assert list(numbers.user_ids.ids(range(40))) == list(texts.user_ids.ids(range(40)))


@pytest.mark.parametrize(
    ("name", "between", "header"),
    [("u.data", "\t", ""), ("ratings.dat", "::", ""), ("ratings.csv", ",", HEADER.strip() + "\n")],
)
def test_files_of_grouplens_are_the_same_as_read_from_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, between: str, header: str
) -> None:
    """Ids, order, ratings and times do not depend on how GroupLens' files were read."""
    header = header.replace("movieid", "movieId")
    rows = "".join(
        f"{user},{item},{(user + item) % 9 / 2 + 0.5},{10 * user + item}\n"
        for user in range(1, 30)
        for item in range(90, 110)
        if (user * item) % 7
    )
    (tmp_path / name).write_text(header + rows.replace(",", between))
    plain = load_grouplens(tmp_path).dataset
    monkeypatch.setattr(grouplens_ratings, "read_plain_columns", lambda *_: None)
    texts = load_grouplens(tmp_path).dataset
    assert plain.fingerprint() == texts.fingerprint()
    np.testing.assert_array_equal(plain.file_order, texts.file_order)


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=50)
    | st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20)
)
def test_numeric_names_are_sorted_as_text(numbers: list[int]) -> None:
    """The names and indexes are those of the numbers as text."""
    column = np.array(numbers)
    found = distinct_numbers([column[: len(column) // 2], column[len(column) // 2 :]])
    expected, expected_index = distinct(column.astype(np.bytes_))
    assert found.names.tolist() == expected.tolist()
    np.testing.assert_array_equal(found.codes, expected_index)


@given(st.lists(st.binary(min_size=0, max_size=6), max_size=6))
def test_names_known_to_be_valid_are_valid(names: list[bytes]) -> None:
    """No id that is empty or has a NUL is taken to be valid."""
    column = np.array(names, dtype=np.bytes_) if names else np.empty(0, "S1")
    texts = [name.decode("latin-1") for name in column.tolist()]
    if all_valid(column):
        assert all(id_problem(text) is None for text in texts)
    elif all(name and b"\0" not in name for name in names):
        assert not names or column.dtype.itemsize > 256
