"""GroupLens' files: what is read and what is refused."""

from __future__ import annotations

import random as randoms
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import OtherFormError, RatingsError
from marquee_trainer.data.grouplens import load_grouplens
from marquee_trainer.data.grouplens_ratings import parse_ratings
from marquee_trainer.data.ids import MAX_ID_BYTES
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.scale import RatingScale

# The ratings file of each format, its delimiter and its header.
FORMATS = {
    "tabs": ("u.data", "\t", ""),
    "double colons": ("ratings.dat", "::", ""),
    "commas": ("ratings.csv", ",", "userId,movieId,rating,timestamp\n"),
}
formats = pytest.mark.parametrize(
    ("name", "delimiter", "header"), FORMATS.values(), ids=FORMATS.keys()
)

Row = tuple[str, str, str, int]


def ids_for(delimiter: str) -> st.SearchStrategy[str]:
    """Draw printable ids without the characters of a delimiter."""
    letters = st.characters(
        exclude_characters=delimiter, exclude_categories=["C", "Zl", "Zp", "Zs"]
    )
    return st.one_of(
        st.integers(1, 40).map(str),
        st.sampled_from(["007", "two words", "Zoë 1", "9" * 30]),
        st.text(letters, min_size=1, max_size=MAX_ID_BYTES // 4),
    )


def rows_for(delimiter: str) -> st.SearchStrategy[list[Row]]:
    """Draw rows of distinct pairs, with ratings as the data sets write them."""
    stars = st.integers(1, 10).map(lambda halves: halves / 2)
    return st.lists(
        st.tuples(
            ids_for(delimiter),
            ids_for(delimiter),
            st.one_of(stars.map(str), stars.map(lambda value: f"{value:g}")),
            st.integers(0, 10**18 - 1),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[:2],
    )


def written(rows: list[Row], delimiter: str, header: str, newline: str = "\n") -> bytes:
    """Return the content of a ratings file."""
    lines = [delimiter.join(map(str, row)) + "\n" for row in rows]
    return (header + "".join(lines)).replace("\n", newline).encode()


def loaded(name: str, content: bytes) -> RatingsDataset:
    """Load a data set from a folder with one ratings file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        return load_grouplens(Path(folder))[0]


def read_back(dataset: RatingsDataset) -> list[tuple[str, str, float, int]]:
    """Return the rows of a data set in the order of its source."""
    order = dataset.file_order
    return list(
        zip(
            dataset.user_ids.ids(dataset.users[order]),
            dataset.catalogue.items.ids(dataset.items[order]),
            dataset.ratings[order].tolist(),
            dataset.timestamps[order].tolist(),
            strict=True,
        )
    )


@formats
@settings(deadline=None)
@given(data=st.data(), newline=st.sampled_from(["\n", "\r\n"]), marked=st.booleans())
def test_written_rows_are_read_back(
    name: str, delimiter: str, header: str, data: st.DataObject, newline: str, marked: bool
) -> None:
    """All rows of each format are read in order, with any line ends and a byte order mark."""
    rows = data.draw(rows_for(delimiter))
    content = b"\xef\xbb\xbf" * marked + written(rows, delimiter, header, newline)
    expected = [(user, item, float(stars), seconds) for user, item, stars, seconds in rows]
    assert read_back(loaded(name, content)) == expected


@formats
@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_the_order_of_a_files_rows_does_not_matter(
    name: str, delimiter: str, header: str, data: st.DataObject, seed: int
) -> None:
    """A shuffled file results in the same arrays and the same fingerprint."""
    rows = data.draw(rows_for(delimiter))
    one = loaded(name, written(rows, delimiter, header))
    randoms.Random(seed).shuffle(rows)  # noqa: S311
    other = loaded(name, written(rows, delimiter, header))
    for array in ("users", "items", "ratings", "timestamps"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
    assert one.fingerprint() == other.fingerprint()


@formats
@settings(deadline=None)
@given(data=st.data())
def test_a_blank_line_is_reported_at_any_position(
    name: str, delimiter: str, header: str, data: st.DataObject
) -> None:
    """Rows around a malformed one are not reported with it."""
    rows = data.draw(rows_for(delimiter))
    blank = data.draw(st.integers(1, len(rows)))
    lines = written(rows, delimiter, header).split(b"\n")
    lines.insert(blank - 1 + bool(header), b"")
    with pytest.raises(RatingsError, match=rf"\(1\):\n  {name}:{blank + bool(header)}: 1 f"):
        loaded(name, b"\n".join(lines))


@settings(deadline=None)
@given(rows_for("\t:,"))
def test_the_format_does_not_matter(rows: list[Row]) -> None:
    """The same ratings have the same fingerprint in all three formats."""
    prints = {
        loaded(name, written(rows, delimiter, header)).fingerprint()
        for name, delimiter, header in FORMATS.values()
    }
    assert len(prints) == 1


GOOD = ("1", "10", "4", 881250949)
MALFORMED = {
    "few fields": (["2", "10", "4"], "3 fields, not 4"),
    "many fields": (["2", "10", "4", "5", "6"], "5 fields, not 4"),
    "nothing": ([""], "1 fields, not 4"),
    "no user": (["", "10", "4", "5"], "'' is not a user id: it is empty"),
    "no item": (["2", "", "4", "5"], "'' is not an item id: it is empty"),
    "long id": (["é" * 129, "10", "4", "5"], "is not a user id: it is longer than 256 bytes"),
    "NUL": (["2\0", "10", "4", "5"], "is not a user id: it has a NUL character"),
    "rating of 0": (["2", "10", "0", "5"], "'0' is not a rating from 0.5 to 5 in half stars"),
    "rating of 5.5": (["2", "10", "5.5", "5"], "'5.5' is not a rating"),
    "quarter star": (["2", "10", "3.25", "5"], "'3.25' is not a rating"),
    "negative": (["2", "10", "-3", "5"], "'-3' is not a rating"),
    "NaN": (["2", "10", "nan", "5"], "'nan' is not a rating"),
    "exponent": (["2", "10", "1e0", "5"], "'1e0' is not a rating"),
    "no rating": (["2", "10", "", "5"], "'' is not a rating"),
    "no timestamp": (["2", "10", "4", ""], "'' is not a timestamp"),
    "half a second": (["2", "10", "4", "5.5"], "'5.5' is not a timestamp"),
    "too late": (["2", "10", "4", "9" * 19], "is not a timestamp"),
}


@formats
@pytest.mark.parametrize(("fields", "problem"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_row_is_named_by_file_and_line(
    name: str, delimiter: str, header: str, fields: list[str], problem: str
) -> None:
    """The error says where the row is and what is wrong with it."""
    good = [GOOD, ("1", "11", "3", 5)]
    content = written(good, delimiter, header) + delimiter.join(fields).encode() + b"\n"
    content += written([("3", "10", "2", 7)], delimiter, "")
    line = 3 + bool(header)
    with pytest.raises(RatingsError, match=r"malformed rows \(1\)") as caught:
        loaded(name, content)
    assert f"{name}:{line}: " in str(caught.value)
    assert problem in str(caught.value)


@formats
def test_malformed_rows_are_counted_and_the_first_ten_shown(
    name: str, delimiter: str, header: str
) -> None:
    """The error has the number of bad rows, but does not list a thousand of them."""
    rows = [(str(row), "1", "4" if row % 2 else "9", 1) for row in range(1, 2001)]
    with pytest.raises(RatingsError, match=r"malformed rows \(1000\)") as caught:
        loaded(name, written(rows, delimiter, header))
    shown = [line for line in str(caught.value).split("\n") if f"{name}:" in line]
    first = 2 + bool(header)
    assert [int(line.split(":")[1]) for line in shown] == [first + 2 * n for n in range(10)]
    assert "… and 990 more" in str(caught.value)


def test_a_malformed_first_row_does_not_hide_the_delimiter() -> None:
    """One bad line is one error, even if it comes first."""
    with pytest.raises(RatingsError, match=r"malformed rows \(1\):\n  u.data:1: 1 fields"):
        parse_ratings(b"who,knows\n1\t2\t3\t4\n1\t3\t3\t4\n", "u.data")


def test_a_csv_file_needs_its_header() -> None:
    """A file with another header is in another format, which is read as a plain table."""
    with pytest.raises(RatingsError, match=r"ratings.csv:1: the header is not userId,movieId"):
        parse_ratings(b"1,2,3,4\n1,3,3,4\n", "ratings.csv")


def test_ratings_on_another_scale_are_another_format() -> None:
    """Ratings of 1 to 10 are not typing errors, and the error names the option for the scale."""
    content = b"".join(b"1\t%d\t%d\t5\n" % (item, 1 + item % 10) for item in range(50))
    with pytest.raises(OtherFormError, match="use --scale LOW:HIGH"):
        parse_ratings(content, "u.data")
    rows = parse_ratings(content, "u.data", RatingScale(1, 10, 0))
    assert sorted(set(rows.ratings.array.tolist())) == list(range(1, 11))
    with pytest.raises(RatingsError, match="'40' is not a rating from 1 to 10"):
        parse_ratings(content + b"2\t1\t40\t5\n", "u.data", RatingScale(1, 10, 0))


def test_repeated_ratings_are_merged_if_allowed(tmp_path: Path) -> None:
    """The latest rating is used, and a note has the number of repeats."""
    rows = [("1", "10", "2", 9), ("1", "10", "4", 5), ("2", "10", "3", 1)]
    (tmp_path / "u.data").write_bytes(written(rows, "\t", ""))
    dataset, _, notes = load_grouplens(tmp_path, options=ReadOptions(on_repeat="last"))
    assert read_back(dataset) == [("1", "10", 2.0, 9), ("2", "10", 3.0, 1)]
    assert notes == ["1 rating repeats a user and an item; the latest one is used"]


@formats
def test_a_file_without_rows_is_an_error(name: str, delimiter: str, header: str) -> None:
    """The error says that there are no ratings."""
    with pytest.raises(RatingsError, match="there are no ratings"):
        loaded(name, header.encode())


@formats
def test_a_repeated_pair_is_named_by_both_lines(name: str, delimiter: str, header: str) -> None:
    """No rating is dropped silently, even if both agree."""
    content = written([GOOD, ("1", "11", "3", 5), GOOD], delimiter, header)
    first = 1 + bool(header)
    message = f"{name}:{first + 2}: user 1 rates item 10 again, after {name}:{first}"
    with pytest.raises(RatingsError, match=message):
        loaded(name, content)


def test_a_pair_in_both_parts_of_a_split_is_named_by_both_files(tmp_path: Path) -> None:
    """Training on a test rating would make every model look better than it is."""
    (tmp_path / "a.base").write_bytes(written([GOOD, ("1", "11", "3", 5)], "\t", ""))
    (tmp_path / "a.test").write_bytes(written([("2", "10", "3", 5), GOOD], "\t", ""))
    with pytest.raises(RatingsError, match=r"a.test:2: user 1 rates item 10 again, after a.base:1"):
        load_grouplens(tmp_path, "a.base", "a.test")


def test_named_files_are_the_split(tmp_path: Path) -> None:
    """The rows for training and testing are those of the named files."""
    train, test = [GOOD, ("2", "11", "3", 5)], [("1", "11", "2", 6)]
    (tmp_path / "a.base").write_bytes(written(train, "\t", ""))
    (tmp_path / "a.test").write_bytes(written(test, "\t", ""))
    dataset, split, _ = load_grouplens(tmp_path, "a.base", "a.test")
    assert split is not None
    assert split.description == "a.base, a.test"
    assert sorted(dataset.ratings[split.train].tolist()) == [3, 4]
    assert dataset.ratings[split.test].tolist() == [2]
    assert dataset.source == f"grouplens:{tmp_path.name} (a.base, a.test)"


def test_without_a_training_file_all_other_ratings_are_trained_on(tmp_path: Path) -> None:
    """A fold needs only its test file, and the data set has all ratings."""
    rest, held = [GOOD, ("2", "11", "3", 5)], [("1", "11", "2", 6)]
    (tmp_path / "u.data").write_bytes(written([rest[0], *held, rest[1]], "\t", ""))
    (tmp_path / "a.test").write_bytes(written(held, "\t", ""))
    dataset, split, _ = load_grouplens(tmp_path, None, "a.test")
    assert split is not None
    assert dataset.ratings[split.train].tolist() == [4, 3]
    assert dataset.ratings[split.test].tolist() == [2]
    assert split.description == "all but a.test, a.test"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "10", "3", 5)], r"a.test:1: user 1 rates item 10 3, which is not among all"),
        ([("9", "10", "4", 5)], r"a.test:1: user 9 rates item 10 4, which is not among all"),
        ([GOOD, GOOD], r"a.test:2: user \S+ has already rated item \S+ in this file"),
        ([GOOD, ("2", "11", "3", 5)], r"none are left for training"),
    ],
)
def test_invalid_test_ratings_are_an_error(rows: list[Row], message: str, tmp_path: Path) -> None:
    """Test ratings must be a proper subset of the data set, without repeats."""
    (tmp_path / "u.data").write_bytes(written([GOOD, ("2", "11", "3", 5)], "\t", ""))
    (tmp_path / "a.test").write_bytes(written(rows, "\t", ""))
    with pytest.raises(RatingsError, match=message):
        load_grouplens(tmp_path, None, "a.test")


def test_missing_files_are_named(tmp_path: Path) -> None:
    """The error lists the files that were expected."""
    with pytest.raises(RatingsError, match=r"it contains none of u.data, ratings.dat, ratings.csv"):
        load_grouplens(tmp_path)
    with pytest.raises(RatingsError, match=r"there is no file a.base"):
        load_grouplens(tmp_path, "a.base", "a.test")
    with pytest.raises(RatingsError, match="--train requires --test"):
        load_grouplens(tmp_path, "a.base")


def test_a_zip_file_is_read_as_its_folder(tmp_path: Path) -> None:
    """A folder and its zip file result in the same data."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "ratings.dat").write_bytes(written([GOOD], "::", ""))
    (folder / "movies.dat").write_bytes("10::Café, The (1999)::Drama|War\n".encode("latin-1"))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"inner/{path.name}")
    for source in (folder, tmp_path / "set.zip"):
        dataset, split, _ = load_grouplens(source)
        assert (dataset.source, split) == ("grouplens:set", None)
        assert dataset.catalogue.title(0) == "The Café"
        assert dataset.catalogue.item_genres(0) == ("Drama", "War")


@pytest.mark.parametrize(
    ("ratings", "items", "content"),
    [
        ("u.data", "u.item", "{}|{}|01-Jan-1995||http://x|" + "|".join("0" * 18 + "1") + "\n"),
        ("ratings.dat", "movies.dat", "{}::{}::Western\n"),
        ("ratings.csv", "movies.csv", "{},{},Western\n"),
    ],
)
def test_items_without_ratings_stay_in_the_catalogue(
    ratings: str, items: str, content: str, tmp_path: Path
) -> None:
    """They can be searched for in each format, and a note has their number."""
    name, delimiter, header = next(f for f in FORMATS.values() if f[0] == ratings)
    (tmp_path / name).write_bytes(written([GOOD], delimiter, header))
    lines = [content.format(10, "Rated (1994)"), content.format(9, "Unrated (1995)")]
    title_row = "movieId,title,genres\n" if items == "movies.csv" else ""
    (tmp_path / items).write_text(title_row + "".join(lines))
    dataset, _, notes = load_grouplens(tmp_path)
    catalogue = dataset.catalogue
    assert [catalogue.title(item) for item in range(2)] == ["Rated", "Unrated"]
    assert catalogue.item_genres(1) == ("Western",)
    assert dataset.items.tolist() == [0]
    assert notes == ["1 items without ratings stay in the catalogue"]


def test_a_damaged_zip_file_is_an_error_of_ratings(tmp_path: Path) -> None:
    """A file that is not an archive and a damaged entry both raise a RatingsError."""
    path = tmp_path / "set.zip"
    path.write_bytes(b"not an archive")
    with pytest.raises(RatingsError, match=r"set.zip"):
        load_grouplens(path)
    rows: list[Row] = [(str(user), "1", "4", user) for user in range(1, 2000)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.dat", written(rows, "::", ""))
    whole = path.read_bytes()
    for place in (60, 400, 2000):
        path.write_bytes(whole[:place] + b"\xff" * 40 + whole[place + 40 :])
        with pytest.raises(RatingsError, match=r"set.zip: ratings.dat"):
            load_grouplens(path)
