"""Which reader loads a source: GroupLens' format, tables, archives and URLs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import fsspec
import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import load_ratings
from toy.rating_formats import PLAIN, read_back
from toy.ratings_files import GROUPLENS, ROWS, zipped


def title(source: str) -> str:
    """Return the title of the only item of a source."""
    return load_ratings(source).dataset.catalogue.title(0)


def write(folder: Path, files: dict[str, str]) -> Path:
    """Write files to a folder."""
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_naming_a_ratings_file_also_reads_the_movies_next_to_it(tmp_path: Path) -> None:
    """The titles are found although only the ratings are named."""
    write(tmp_path, GROUPLENS)
    assert title(str(tmp_path / "ratings.dat")) == "The Matrix"
    assert title(str(tmp_path)) == "The Matrix"


def test_the_named_file_is_read_in_a_folder_with_two_formats(tmp_path: Path) -> None:
    """A file is never replaced by another one in its folder."""
    write(tmp_path, GROUPLENS | {"ratings.csv": PLAIN})
    assert read_back(load_ratings(str(tmp_path / "ratings.csv")).dataset) == ROWS


@pytest.mark.parametrize("inner", ["", "set/"])
def test_zip_files_are_read_from_a_url(inner: str, tmp_path: Path) -> None:
    """GroupLens publishes zip files."""
    path = Path(zipped({inner + name: text for name, text in GROUPLENS.items()})(tmp_path))
    url = f"memory://zip-{bool(inner)}/set.zip"
    with fsspec.open(url, "wb") as stream:
        stream.write(path.read_bytes())
    assert title(url) == "The Matrix"
    assert load_ratings(url).dataset.source == "grouplens:set"


def test_grouplens_folders_are_read_from_a_url() -> None:
    """The files of ratings and movies are downloaded."""
    for name, content in GROUPLENS.items():
        with fsspec.open(f"memory://folder/ml/{name}", "wb") as stream:
            stream.write(content.encode())
    assert title("memory://folder/ml") == "The Matrix"


def test_a_zip_file_of_other_files_is_read_as_a_folder(tmp_path: Path) -> None:
    """Other data sets are often published as zip files."""
    files = {"Ratings.csv": PLAIN, "Books.csv": "ISBN,Title\nb1,A\nb2,B\n"}
    dataset = load_ratings(zipped(files)(tmp_path)).dataset
    assert read_back(dataset) == ROWS
    assert [dataset.catalogue.title(item) for item in range(2)] == ["A", "B"]


def test_a_file_next_to_the_ratings_without_items_is_only_reported(tmp_path: Path) -> None:
    """The user did not name the file, so it is not an error."""
    write(tmp_path, {"events.csv": PLAIN, "items.csv": "colour,size\nred,1\n"})
    notes = load_ratings(str(tmp_path)).interpretation.notes
    assert notes[0].startswith("the file items.csv next to the ratings is not used: items.csv: no")


def test_columns_of_a_grouplens_file_can_be_named(tmp_path: Path) -> None:
    """Columns that the user names take precedence over the usual format."""
    write(tmp_path, {"u.data": "1\t10\t4\t5\n2\t10\t3\t6\n"})
    options = ReadOptions({"user": "2", "item": "1", "rating": "3"})
    dataset = load_ratings(str(tmp_path / "u.data"), options=options).dataset
    assert read_back(dataset) == [("10", "1", 4, 0), ("10", "2", 3, 0)]


def test_columns_of_a_sample_cannot_be_named() -> None:
    """No option is ignored silently."""
    with pytest.raises(RatingsError, match="--columns requires files or a database"):
        load_ratings("sample", options=ReadOptions({"user": "1", "item": "2"}))


@pytest.mark.parametrize(
    "names",
    [
        "events.csv",
        "my_ratings.csv users.csv books.csv tags.csv",
        "user_artists.csv artists.csv",
        "2024.csv users.csv",
        "part-0.csv items.csv",
        "orders.csv products.csv",
    ],
)
def test_the_file_of_ratings_of_a_folder_is_found_by_its_name(names: str, tmp_path: Path) -> None:
    """Other files in the folder are not taken for ratings."""
    first, *others = names.split()
    write(tmp_path, {first: PLAIN} | dict.fromkeys(others, "id,title\nb1,A\nb2,B\n"))
    assert read_back(load_ratings(str(tmp_path)).dataset) == ROWS


def test_a_remote_folder_without_ratings_of_grouplens_is_read_as_tables() -> None:
    """A file called movies.csv does not make the folder a GroupLens data set."""
    for name, content in {"events.csv": PLAIN, "movies.csv": "id,title\nb1,A\nb2,B\n"}.items():
        with fsspec.open(f"memory://own/{name}", "wb") as stream:
            stream.write(content.encode())
    dataset = load_ratings("memory://own").dataset
    assert read_back(dataset) == ROWS
    assert dataset.catalogue.title(0) == "A"


def test_a_zip_file_is_read_like_its_folder(tmp_path: Path) -> None:
    """Subfolders count only if the top folder has no data; several files are named."""
    text = "user,item,rating\na,{},3\nb,{},4\n"
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.writestr("README.txt", "own")
        for number, name in enumerate(("d/part1.csv", "d/part2.csv", "d/old/part3.csv")):
            archive.writestr(name, text.format(number, number))
    with zipfile.ZipFile(tmp_path / "own.zip") as archive:
        archive.extractall(tmp_path / "extracted")
    found = load_ratings(str(tmp_path / "own.zip"))
    assert len(found.dataset) == 4
    assert "2 files are read as one table: part1.csv, part2.csv" in found.interpretation.notes
    again = load_ratings(str(tmp_path / "extracted" / "d"))
    assert again.dataset.fingerprint() == found.dataset.fingerprint()


def test_files_with_other_columns_name_the_first_file(tmp_path: Path) -> None:
    """All files of a folder are one table."""
    (tmp_path / "a.csv").write_text("user,item,rating\na,1,3\n")
    (tmp_path / "b.csv").write_text("user,item,stars\nb,1,3\n")
    with pytest.raises(RatingsError, match=r"b.csv: there is no column 'rating', which a.csv has"):
        load_ratings(str(tmp_path))
