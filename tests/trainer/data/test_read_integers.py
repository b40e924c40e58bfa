"""Ids and times that are read as whole numbers, which must say the same as the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.arrays import Int64
from marquee_trainer.data import ids
from marquee_trainer.data.delimited import DelimitedFile
from marquee_trainer.data.files import DataFile
from marquee_trainer.data.ids import all_valid, distinct, distinct_numbers, id_problem, sort_order
from marquee_trainer.data.source import load_ratings

HEADER = "userId,movieId,rating,timestamp\n"
ROWS = "10,7,3.5,978300760\n9,7,4.0,978302109\n10,0,1,0\n"


def read(path: Path, content: str) -> bool:
    """Whether a file's ids and times are read as whole numbers."""
    path.write_bytes(content.encode())
    table = DelimitedFile.open(DataFile(str(path)))
    frame = table.read_integers([0, 1, 2, 3], [0, 1, 3])
    if frame is None:
        return False
    assert [frame[str(place)].dtype.is_integer() for place in range(4)] == [True, True, False, True]
    texts = table.read([0, 1, 2, 3])
    assert frame.cast(texts.schema).equals(texts)
    return True


@pytest.mark.parametrize("content", [HEADER + ROWS, HEADER + ROWS.rstrip("\n"), ROWS])
def test_numbers_in_their_shortest_form_are_read_as_numbers(tmp_path: Path, content: str) -> None:
    """With and without a header, and without the last end of line."""
    assert read(tmp_path / "ratings.csv", content)


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
    """Signs, zeros in front, spaces, quotes and other texts would be lost in a number."""
    assert not read(tmp_path / "ratings.csv", HEADER + ROWS + row + "\n" + ROWS)
    windows = (HEADER + ROWS).replace("\n", "\r\n")
    assert not read(tmp_path / "ratings.csv", windows)


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
    monkeypatch.setattr(DelimitedFile, "read_integers", lambda *_: None)
    texts = load_ratings(str(path)).dataset
    assert numbers.fingerprint() == texts.fingerprint()
    np.testing.assert_array_equal(numbers.file_order, texts.file_order)
    assert list(numbers.user_ids.ids(range(40))) == list(texts.user_ids.ids(range(40)))


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=50)
    | st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20)
)
def test_names_of_numbers_are_sorted_as_text(numbers: list[int]) -> None:
    """The names and indexes are those of the numbers as text."""
    column = np.array(numbers)
    names, index = distinct_numbers(column)
    expected, expected_index = distinct(column.astype(np.bytes_))
    assert names.tolist() == expected.tolist()
    np.testing.assert_array_equal(index, expected_index)


def test_many_rows_are_sorted_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is that of a stable sort by both columns."""
    random = np.random.default_rng(0)
    first: Int64 = random.integers(0, 70_000, 5_000)
    second: Int64 = random.integers(0, 40, 5_000)
    monkeypatch.setattr(ids, "_COUNTED_ROWS", 1)
    np.testing.assert_array_equal(sort_order(first, second), np.lexsort((second, first)))


@given(st.lists(st.binary(min_size=0, max_size=6), max_size=6))
def test_names_that_are_certainly_valid_have_no_problem(names: list[bytes]) -> None:
    """No id is taken for valid that is empty or has a NUL."""
    column = np.array(names, dtype=np.bytes_) if names else np.empty(0, "S1")
    texts = [name.decode("latin-1") for name in column.tolist()]
    if all_valid(column):
        assert all(id_problem(text) is None for text in texts)
    elif all(name and b"\0" not in name for name in names):
        assert not names or column.dtype.itemsize > 256
