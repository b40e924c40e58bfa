"""MovieLens' own files: what is read, what is refused, and the counts of the real sets."""

from __future__ import annotations

import random as randoms
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locations import REAL_DATA
from marquee_trainer.data import parsing
from marquee_trainer.data.dataset import RatingScale, RatingsDataset, RatingsError
from marquee_trainer.data.grouplens import load_grouplens
from marquee_trainer.data.metadata import (
    GENRES_100K,
    parse_movies_csv,
    parse_movies_dat,
    parse_u_item,
)
from marquee_trainer.data.parsing import MAX_ID_BYTES, parse_ratings
from marquee_trainer.data.titles import split_title

# The ratings file of each format, its delimiter, and its first line.
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
    """Printable ASCII ids without the characters of a delimiter."""
    letters = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=delimiter)
    return st.one_of(
        st.integers(1, 40).map(str), st.text(letters, min_size=1, max_size=MAX_ID_BYTES)
    )


def rows_for(delimiter: str) -> st.SearchStrategy[list[Row]]:
    """Rows of distinct pairs, with ratings as any of the sets writes them."""
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
    """A ratings file."""
    lines = [delimiter.join(map(str, row)) + "\n" for row in rows]
    return (header + "".join(lines)).replace("\n", newline).encode()


def loaded(name: str, content: bytes) -> RatingsDataset:
    """A data set of a folder that holds one ratings file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        return load_grouplens(Path(folder))[0]


def read_back(dataset: RatingsDataset) -> list[tuple[str, str, float, int]]:
    """The rows of a data set, in the order of its source."""
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
def test_what_is_written_is_read_back(
    name: str, delimiter: str, header: str, data: st.DataObject, newline: str, marked: bool
) -> None:
    """Every row of each format, in order, whatever the line ends and a byte order mark."""
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
    """A shuffled file gives the same arrays and the same fingerprint."""
    rows = data.draw(rows_for(delimiter))
    one = loaded(name, written(rows, delimiter, header))
    randoms.Random(seed).shuffle(rows)  # noqa: S311
    other = loaded(name, written(rows, delimiter, header))
    for array in ("users", "items", "ratings", "timestamps"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
    assert one.fingerprint() == other.fingerprint()


@formats
@settings(deadline=None)
@given(data=st.data(), size=st.integers(1, 200))
def test_chunks_of_a_file_join_without_a_seam(
    name: str, delimiter: str, header: str, data: st.DataObject, size: int
) -> None:
    """Where a long file is cut changes neither its rows nor which rows are malformed."""
    rows = data.draw(rows_for(delimiter))
    content = written(rows, delimiter, header)
    whole = read_back(loaded(name, content))
    blank = data.draw(st.integers(1, len(rows)))
    lines = content.split(b"\n")
    lines.insert(blank - 1 + bool(header), b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "_CHUNK_BYTES", size)
        assert read_back(loaded(name, content)) == whole
        with pytest.raises(RatingsError, match=rf"\(1\):\n  {name}:{blank + bool(header)}: 1 f"):
            loaded(name, b"\n".join(lines))


@settings(deadline=None)
@given(rows_for("\t:,"))
def test_the_format_does_not_matter(rows: list[Row]) -> None:
    """The same ratings have one fingerprint in all three formats."""
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
    "no user": (["", "10", "4", "5"], "'' is no user id"),
    "space in id": (["2", "1 0", "4", "5"], "'1 0' is no item id"),
    "not ASCII": (["é", "10", "4", "5"], "is no user id"),
    "long id": (["x" * 65, "10", "4", "5"], "is no user id"),
    "NUL": (["2\0", "10", "4", "5"], "is no user id"),
    "rating of 0": (["2", "10", "0", "5"], "'0' is no rating from 0.5 to 5 by half stars"),
    "rating of 5.5": (["2", "10", "5.5", "5"], "'5.5' is no rating"),
    "quarter star": (["2", "10", "3.25", "5"], "'3.25' is no rating"),
    "negative": (["2", "10", "-3", "5"], "'-3' is no rating"),
    "NaN": (["2", "10", "nan", "5"], "'nan' is no rating"),
    "exponent": (["2", "10", "1e0", "5"], "'1e0' is no rating"),
    "no rating": (["2", "10", "", "5"], "'' is no rating"),
    "no timestamp": (["2", "10", "4", ""], "'' is no timestamp"),
    "half a second": (["2", "10", "4", "5.5"], "'5.5' is no timestamp"),
    "too late": (["2", "10", "4", "9" * 19], "is no timestamp"),
}


@formats
@pytest.mark.parametrize(("fields", "problem"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_row_is_named_by_file_and_line(
    name: str, delimiter: str, header: str, fields: list[str], problem: str
) -> None:
    """The error says where and what; the rows around it do not hide it."""
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
    """A thousand bad rows do not fill the screen, but their number is said."""
    rows = [(str(row), "1", "4" if row % 2 else "9", 1) for row in range(1, 2001)]
    with pytest.raises(RatingsError, match=r"malformed rows \(1000\)") as caught:
        loaded(name, written(rows, delimiter, header))
    shown = [line for line in str(caught.value).split("\n") if f"{name}:" in line]
    first = 2 + bool(header)
    assert [int(line.split(":")[1]) for line in shown] == [first + 2 * n for n in range(10)]
    assert "… and 990 more" in str(caught.value)


def test_a_malformed_first_row_does_not_hide_the_delimiter() -> None:
    """One bad line is one error, also where it comes first."""
    with pytest.raises(RatingsError, match=r"malformed rows \(1\):\n  u.data:1: 1 fields"):
        parse_ratings(b"who,knows\n1\t2\t3\t4\n1\t3\t3\t4\n", "u.data")


def test_a_csv_file_needs_its_header() -> None:
    """Without it the columns are anybody's guess, and the first row would be lost."""
    with pytest.raises(RatingsError, match=r"ratings.csv:1: the header is not userId,movieId"):
        parse_ratings(b"1,2,3,4\n1,3,3,4\n", "ratings.csv")


@formats
def test_a_file_without_rows_is_an_error(name: str, delimiter: str, header: str) -> None:
    """An empty file is no data set."""
    with pytest.raises(RatingsError, match="there are no ratings"):
        loaded(name, header.encode())


@formats
def test_a_repeated_pair_is_named_by_both_lines(name: str, delimiter: str, header: str) -> None:
    """Neither rating is dropped in silence, not even when they agree."""
    content = written([GOOD, ("1", "11", "3", 5), GOOD], delimiter, header)
    first = 1 + bool(header)
    message = f"{name}:{first + 2}: user 1 rates item 10 again, after {name}:{first}"
    with pytest.raises(RatingsError, match=message):
        loaded(name, content)


def test_a_pair_in_both_parts_of_a_split_is_named_by_both_files(tmp_path: Path) -> None:
    """A test rating that was trained on would flatter every model."""
    (tmp_path / "a.base").write_bytes(written([GOOD, ("1", "11", "3", 5)], "\t", ""))
    (tmp_path / "a.test").write_bytes(written([("2", "10", "3", 5), GOOD], "\t", ""))
    with pytest.raises(RatingsError, match=r"a.test:2: user 1 rates item 10 again, after a.base:1"):
        load_grouplens(tmp_path, "a.base", "a.test")


def test_named_files_are_the_split(tmp_path: Path) -> None:
    """Training and test rows are those of their files."""
    train, test = [GOOD, ("2", "11", "3", 5)], [("1", "11", "2", 6)]
    (tmp_path / "a.base").write_bytes(written(train, "\t", ""))
    (tmp_path / "a.test").write_bytes(written(test, "\t", ""))
    dataset, split = load_grouplens(tmp_path, "a.base", "a.test")
    assert split is not None
    assert split.description == "a.base, a.test"
    assert sorted(dataset.ratings[split.train].tolist()) == [3, 4]
    assert dataset.ratings[split.test].tolist() == [2]
    assert dataset.source == f"grouplens:{tmp_path.name} (a.base, a.test)"


def test_without_a_training_file_all_other_ratings_are_for_training(tmp_path: Path) -> None:
    """A fold is told by its test file alone; the data set is that of all ratings."""
    rest, held = [GOOD, ("2", "11", "3", 5)], [("1", "11", "2", 6)]
    (tmp_path / "u.data").write_bytes(written([rest[0], *held, rest[1]], "\t", ""))
    (tmp_path / "a.test").write_bytes(written(held, "\t", ""))
    dataset, split = load_grouplens(tmp_path, None, "a.test")
    assert split is not None
    assert dataset.ratings[split.train].tolist() == [4, 3]
    assert dataset.ratings[split.test].tolist() == [2]
    assert split.description == "all but a.test, a.test"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "10", "3", 5)], r"a.test:1: user 1 rates item 10 3, which is none of all"),
        ([("9", "10", "4", 5)], r"a.test:1: user 9 rates item 10 4, which is none of all"),
        ([GOOD, GOOD], r"a.test:2: the rating is in the file already"),
        ([GOOD, ("2", "11", "3", 5)], r"no ratings for training"),
    ],
)
def test_test_ratings_that_are_no_part_of_all_are_an_error(
    rows: list[Row], message: str, tmp_path: Path
) -> None:
    """A test that is not held out of the training would say nothing, or flatter."""
    (tmp_path / "u.data").write_bytes(written([GOOD, ("2", "11", "3", 5)], "\t", ""))
    (tmp_path / "a.test").write_bytes(written(rows, "\t", ""))
    with pytest.raises(RatingsError, match=message):
        load_grouplens(tmp_path, None, "a.test")


def test_missing_files_are_named(tmp_path: Path) -> None:
    """The error says what was looked for."""
    with pytest.raises(RatingsError, match=r"none of u.data, ratings.dat, ratings.csv is there"):
        load_grouplens(tmp_path)
    with pytest.raises(RatingsError, match=r"there is no file a.base"):
        load_grouplens(tmp_path, "a.base", "a.test")
    with pytest.raises(RatingsError, match="needs a test file"):
        load_grouplens(tmp_path, "a.base")


def test_a_zip_file_is_read_as_its_folder(tmp_path: Path) -> None:
    """Packed or not, the data are the same."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "ratings.dat").write_bytes(written([GOOD], "::", ""))
    (folder / "movies.dat").write_bytes("10::Café, The (1999)::Drama|War\n".encode("latin-1"))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"inner/{path.name}")
    for source in (folder, tmp_path / "set.zip"):
        dataset, split = load_grouplens(source)
        assert (dataset.source, split) == ("grouplens:set", None)
        assert dataset.catalogue.title(0) == "The Café"
        assert dataset.catalogue.item_genres(0) == ("Drama", "War")


def test_a_damaged_zip_file_is_an_error_of_ratings(tmp_path: Path) -> None:
    """Neither a file that is no archive nor a damaged entry ends in a traceback of zlib."""
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


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Matrix, The (1999)", "The Matrix", 1999),
        ("Toy Story (1995)", "Toy Story", 1995),
        ("American in Paris, An (1951)", "An American in Paris", 1951),
        ("Avventura, L' (1960)", "L'Avventura", 1960),
        (
            "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
            "The City of Lost Children (La Cité des enfants perdus)",
            1995,
        ),
        (
            "City of the Living Dead (a.k.a. Gates of Hell, The) (1980)",
            "City of the Living Dead (a.k.a. The Gates of Hell)",
            1980,
        ),
        (
            "Land Before Time III, The: The Time of the Great Giving (1995) (V)",
            "Land Before Time III, The: The Time of the Great Giving",
            1995,
        ),
        ("Doctor Who: The Time of the Doctor (2013) ", "Doctor Who: The Time of the Doctor", 2013),
        ("Death Note (2006–2007)", "Death Note", 2006),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("Babylon 5", "Babylon 5", 0),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
        ("unknown", "unknown", 0),
        ("(1999)", "(1999)", 0),
    ],
)
def test_titles_are_as_people_write_them(text: str, title: str, year: int) -> None:
    """Articles come first, and the year is a number of its own."""
    assert split_title(text) == (title, year)


def test_item_files_give_titles_years_and_genres() -> None:
    """All three formats; no genre is not a genre."""
    flags = ["1" if genre in ("Action", "War") else "0" for genre in GENRES_100K]
    u_item = "|".join(["7", "Postino, Il (1994)", "01-Jan-1994", "", "http://x", *flags])
    unknown = "|".join(["8", "unknown", "", "", "", "1", *["0"] * 18])
    details = parse_u_item(f"{u_item}\n{unknown}\n".encode("latin-1"), "u.item")
    assert (details["7"].title, details["7"].year) == ("Il Postino", 1994)
    assert details["7"].genres == ("Action", "War")
    assert details["8"].genres == ()
    details = parse_movies_csv(
        'movieId,title,genres\r\n7,"Postino, Il (1994)",Comedy|Drama\r\n'
        "8,Café (2010),(no genres listed)\r\n".encode(),
        "movies.csv",
    )
    assert (details["7"].title, details["7"].genres) == ("Il Postino", ("Comedy", "Drama"))
    assert (details["8"].title, details["8"].genres) == ("Café", ())


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movies_dat_is_read_in_either_encoding(encoding: str) -> None:
    """MovieLens 1M is Latin-1 and 10M UTF-8."""
    content = "7::Misérables, Les (1995)::Drama\n".encode(encoding)
    assert parse_movies_dat(content, "movies.dat")["7"].title == "Les Misérables"


def test_malformed_item_rows_are_named_by_line() -> None:
    """A movie that cannot be read is not left out."""
    with pytest.raises(RatingsError, match=r"\(2\):\n  movies.dat:2: 2 fields.*\n.*3: item 1 is"):
        parse_movies_dat(b"1::A (1990)::War\n2::B\n1::C::War\n", "movies.dat")
    with pytest.raises(RatingsError, match=r"movies.csv:3: 2 fields, not 3"):
        parse_movies_csv(b"movieId,title,genres\n1,A,War\n2,B\n", "movies.csv")
    with pytest.raises(RatingsError, match=r"movies.csv:1: the header is not movieId"):
        parse_movies_csv(b"1,A,War\n2,B,War\n", "movies.csv")
    with pytest.raises(RatingsError, match=r"movies.csv: .*utf-8"):
        parse_movies_csv(b"movieId,title,genres\n1,\xe9,War\n", "movies.csv")
    with pytest.raises(RatingsError, match=r"u.item:1: not 24 fields"):
        parse_u_item(b"1|A|||\n", "u.item")


def real(name: str) -> Path:
    """A file or folder of the real data."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


COUNTS = {
    "ml-100k": (100_000, 943, 1_682, RatingScale(1.0, 5.0, 1.0)),
    "ml-1m-reassembled.zip": (1_000_209, 6_040, 3_706, RatingScale(1.0, 5.0, 1.0)),
    "ml-latest-small.zip": (100_836, 610, 9_724, RatingScale(0.5, 5.0, 0.5)),
}


@pytest.mark.parametrize(
    ("name", "ratings", "users", "items", "scale"),
    [(name, *counts) for name, counts in COUNTS.items()],
)
def test_the_real_sets_have_their_published_counts(
    name: str, ratings: int, users: int, items: int, scale: RatingScale
) -> None:
    """No row, user or movie of MovieLens is lost."""
    dataset = load_grouplens(real(name))[0]
    assert len(dataset) == ratings
    assert len(dataset.user_ids) == users
    assert len(dataset.catalogue) == items
    assert dataset.scale == scale


@pytest.mark.parametrize(
    ("name", "item", "title", "year", "genres"),
    [
        ("ml-100k", "181", "Return of the Jedi", 1983, "Action Adventure Romance Sci-Fi War"),
        ("ml-100k", "242", "Kolya", 1996, "Comedy"),
        ("ml-100k", "134", "Citizen Kane", 1941, "Drama"),
        ("ml-100k", "132", "The Wizard of Oz", 1939, "Adventure Children's Drama Musical"),
        ("ml-100k", "267", "unknown", 0, ""),
        ("ml-1m-reassembled.zip", "2571", "The Matrix", 1999, "Action Sci-Fi Thriller"),
        ("ml-1m-reassembled.zip", "73", "Les Misérables", 1995, "Drama Musical"),
        ("ml-latest-small.zip", "2571", "The Matrix", 1999, "Action Sci-Fi Thriller"),
        ("ml-latest-small.zip", "73", "Les Misérables", 1995, "Drama War"),
        ("ml-latest-small.zip", "114335", "La cravate", 1957, ""),
    ],
)
def test_real_titles_years_and_genres(
    name: str, item: str, title: str, year: int, genres: str
) -> None:
    """Known movies are shown as people know them, in every format."""
    catalogue = load_grouplens(real(name))[0].catalogue
    index = catalogue.items.index(item)
    assert (catalogue.title(index), int(catalogue.years[index])) == (title, year)
    assert " ".join(catalogue.item_genres(index)) == genres


@pytest.mark.parametrize("fold", ["u2", "u3", "u4", "u5"])
def test_a_fold_is_the_whole_set_split_as_its_files_say(fold: str) -> None:
    """A fold's ratings are those of u.data: 80,000 to train on, 20,000 to test."""
    folder = real("ml-100k")
    # Not u1: copies of its u1.base are about whose ratings somebody rescaled.
    dataset, split = load_grouplens(folder, f"{fold}.base", f"{fold}.test")
    assert split is not None
    assert (len(split.train), len(split.test)) == (80_000, 20_000)
    assert dataset.fingerprint() == load_grouplens(folder)[0].fingerprint()
    tested = parse_ratings((folder / f"{fold}.test").read_bytes(), f"{fold}.test")
    assert set(dataset.user_ids.ids(dataset.users[split.test])) == set(
        tested.users.astype(str).tolist()
    )
    np.testing.assert_array_equal(
        np.sort(dataset.timestamps[split.test]), np.sort(tested.timestamps)
    )


def test_the_five_test_files_are_the_whole_set(tmp_path: Path) -> None:
    """Together the folds test each rating of u.data once."""
    folder = real("ml-100k")
    parts = [(folder / f"u{fold}.test").read_bytes() for fold in range(1, 6)]
    (tmp_path / "u.data").write_bytes(b"".join(parts))
    assert load_grouplens(tmp_path)[0].fingerprint() == load_grouplens(folder)[0].fingerprint()
