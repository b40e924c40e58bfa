"""Item metadata with any columns, and how its ids are joined with those of the ratings."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.data.items import read_items, split_genres
from marquee_trainer.data.options import ReadOptions
from marquee_trainer.data.source import LoadedRatings, load_ratings
from marquee_trainer.data.tables import FrameTable

RATINGS = "user,item,rating\nann,1,4\nann,2,2.5\nbob,1,3\n"


def write(folder: Path, files: dict[str, str | bytes]) -> str:
    """Write files to a folder, and return its path."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def titles(found: LoadedRatings) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    """Return title, year and genres of all items by id."""
    catalogue = found.dataset.catalogue
    return {
        catalogue.items.id(item): (
            catalogue.title(item),
            int(catalogue.years[item]),
            catalogue.item_genres(item),
        )
        for item in range(len(catalogue))
    }


@pytest.mark.parametrize(
    ("items", "genres"),
    [
        ("item,title,year,genres\n1,A,1999,War | Drama\n2,B,,War\n", ("Drama", "War")),
        ('item_id;Name;Release Date;Genre\n1;"A";1999-03-31;War\n2;B;;\n', ("War",)),
        ('id,title,genres\n1,A (1999),"[""Drama"", ""War""]"\n2,B,[]\n', ("Drama", "War")),
        ("movieId,title,genres\r\n1,A (1999),Drama|War|Drama\r\n2,B,\r\n", ("Drama", "War")),
        ('id,title,genres\n1,A (1999),"Drama, War"\n2,B,War\n', ("Drama", "War")),
    ],
)
def test_titles_years_and_genres_are_found(
    items: str, genres: tuple[str, ...], tmp_path: Path
) -> None:
    """They are found in each way of writing them, with or without spaces around genres."""
    source = write(tmp_path, {"x.csv": RATINGS, "films.csv": items})
    options = ReadOptions(items=str(tmp_path / "films.csv"))
    found = titles(load_ratings(f"{source}/x.csv", options=options))
    assert found["1"] == ("A", 1999, genres)
    assert found["2"][:2] == ("B", 0)


def test_the_separator_of_genres_can_be_given(tmp_path: Path) -> None:
    """A separator that is not a common one can be given."""
    source = write(
        tmp_path, {"x.csv": RATINGS, "i.csv": "id,title,genres\n1,A,War / Drama\n2,B,\n"}
    )
    options = ReadOptions(items=f"{source}/i.csv", genre_separator="/")
    assert titles(load_ratings(f"{source}/x.csv", options=options))["1"][2] == ("Drama", "War")


def test_other_columns_are_attributes(tmp_path: Path) -> None:
    """Free-form attributes are kept in the data set, one text per item."""
    items = "id,title,director,minutes\n1,A,Zoë,90\n3,C,,80\n2,B,,\n"
    source = write(tmp_path, {"x.csv": RATINGS, "i.csv": items})
    dataset = load_ratings(f"{source}/x.csv", options=ReadOptions(items=f"{source}/i.csv")).dataset
    assert dataset.attributes == {"director": ["Zoë", "", ""], "minutes": ["90", "", "80"]}


def test_items_without_ratings_stay_in_the_catalogue(tmp_path: Path) -> None:
    """They can be searched for, and a note has their number."""
    items = "id,title\n0,Z\n1,A\n2,B\n3,C\n"
    source = write(tmp_path, {"x.csv": RATINGS, "i.csv": items})
    found = load_ratings(f"{source}/x.csv", options=ReadOptions(items=f"{source}/i.csv"))
    assert [title for title, _, _ in titles(found).values()] == ["Z", "A", "B", "C"]
    assert found.dataset.items.tolist() == [1, 2, 1]
    assert found.dataset.by_item.seen(0).tolist() == []
    assert "2 items without ratings stay in the catalogue" in found.interpretation.notes


def test_models_leave_out_the_unrated_items_of_a_large_catalogue(tmp_path: Path) -> None:
    """The catalogue keeps all items, while the data for models has only the rated ones."""
    items = "id,title\n" + "".join(f"{item},T{item}\n" for item in range(5_001))
    source = write(tmp_path, {"x.csv": RATINGS, "i.csv": items})
    found = load_ratings(f"{source}/x.csv", options=ReadOptions(items=f"{source}/i.csv"))
    assert len(titles(found)) == 5_001
    assert "4,999 items without ratings stay in the catalogue" in found.interpretation.notes
    modelled = found.dataset.of_modelled_items()
    assert [modelled.catalogue.items.id(item) for item in range(2)] == ["1", "2"]
    assert list(modelled.catalogue.titles()) == ["T1", "T2"]
    assert modelled.items.tolist() == [0, 1, 0]
    assert modelled.fingerprint() == found.dataset.fingerprint()


def test_a_file_of_items_next_to_the_ratings_is_found(tmp_path: Path) -> None:
    """A folder of ratings and movies needs no option."""
    movies = "id,title,genres,director\n1,A (1999),War,X\n2,B (2001),,Y\n"
    source = write(tmp_path, {"interactions.csv": RATINGS, "movies.csv": movies})
    assert titles(load_ratings(source))["1"] == ("A", 1999, ("War",))


@pytest.mark.parametrize(
    ("ratings", "items", "source"),
    [
        ("own.csv", "movies.csv", "own.csv"),
        ("own-1.csv", "movies.csv", "own*.csv"),
        ("ml.inter", "ml.item", "ml.inter"),
        ("user_artists.csv", "artists.csv", "user_artists.csv"),
        ("BX-Book-Ratings.csv", "BX-Books.csv", "BX-Book-Ratings.csv"),
    ],
)
def test_items_next_to_a_file_of_ratings_are_used(
    tmp_path: Path, ratings: str, items: str, source: str
) -> None:
    """Also if the source is the file, or a glob, and not its folder."""
    write(
        tmp_path, {ratings: "user,item,rating\na,1,5\nb,2,3\n", items: "id,title\n1,One\n2,Two\n"}
    )
    assert titles(load_ratings(str(tmp_path / source)))["1"][0] == "One"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("user,item,title\na,1,One\n", "it has a column of users"),
        ("id,title\n7,Seven\n", "none of its ids is that of a rated item"),
    ],
)
def test_a_neighbour_that_does_not_describe_the_items_is_not_used(
    tmp_path: Path, text: str, reason: str
) -> None:
    """It may belong to other ratings; a note says so."""
    write(tmp_path, {"own.csv": "user,item,rating\na,1,5\nb,2,3\n", "movies.csv": text})
    found = load_ratings(str(tmp_path / "own.csv"))
    assert titles(found)["1"][0] == "1"
    note = f"the file movies.csv next to the ratings is not used: {reason}"
    assert note in found.interpretation.notes


@pytest.mark.parametrize(
    ("item", "items"),
    [
        ("book_id", "isbn,book_id,title\n77,1,One\n78,2,Two\n"),  # the same name
        ("songId", "sku,movieId,song,title\nX,77,1,One\nY,78,2,Two\n"),  # the same name but for id
        ("product", "isbn,sku,title\n77,1,One\n78,2,Two\n"),  # describes the most items
    ],
)
def test_the_column_of_item_ids_is_that_which_joins(tmp_path: Path, item: str, items: str) -> None:
    """Files of items often have several columns of ids."""
    write(tmp_path, {"ratings.csv": f"user,{item},rating\na,1,5\nb,2,3\n", "items.csv": items})
    assert titles(load_ratings(str(tmp_path)))["1"][0] == "One"


def test_columns_of_items_can_be_named(tmp_path: Path) -> None:
    """By name or by position."""
    write(tmp_path, {"own.csv": "user,item,rating\na,1,5\nb,2,3\n"})
    write(tmp_path, {"films.csv": "id,key,name,said\n1,2,No,Yes\n2,1,No,Oui\n"})
    options = ReadOptions(
        items=str(tmp_path / "films.csv"), item_columns={"id": "key", "title": "4"}
    )
    assert titles(load_ratings(str(tmp_path / "own.csv"), options=options))["1"][0] == "Oui"


def test_genres_of_recbole_are_words(tmp_path: Path) -> None:
    """Its files of MovieLens have them in a column `class`."""
    write(
        tmp_path,
        {
            "ml.inter": "user_id:token\titem_id:token\trating:float\n1\t1\t5\n2\t2\t3\n",
            "ml.item": "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
            "1\tToy Story\tComedy Drama\n2\tHeat\tAction\n",
        },
    )
    found = titles(load_ratings(str(tmp_path / "ml.inter")))
    assert found["1"] == ("Toy Story", 0, ("Comedy", "Drama"))


def test_a_given_file_of_items_replaces_that_of_grouplens(tmp_path: Path) -> None:
    """The titles are those of the file that the user names."""
    files: dict[str, str | bytes] = {
        "u.data": "1\t1\t4\t5\n1\t2\t3\t6\n",
        "i.csv": "id,title\n1,Own\n2,Other\n",
    }
    source = write(tmp_path, files)
    found = load_ratings(source, options=ReadOptions(items=f"{source}/i.csv"))
    assert [title for title, _, _ in titles(found).values()] == ["Own", "Other"]
    assert found.dataset.source.startswith("grouplens:")


@pytest.mark.parametrize(
    ("rated", "described", "joined"),
    [
        (["1.0", "2.0"], ["1", "2"], ["1", "2"]),
        (["1", "2"], ["1.0", "2.0"], ["1", "2"]),
        (["1.0", "2.5"], ["1", "2"], None),
        (["1.0", "x"], ["1", "x"], None),
    ],
)
def test_whole_numbers_written_as_floats_are_joined_if_unambiguous(
    rated: list[str], described: list[str], joined: list[str] | None, tmp_path: Path
) -> None:
    """`1.0` means `1` only if all ids of one side are whole numbers with `.0`."""
    text = "user,item,rating\n" + "".join(f"ann,{item},{n}\n" for n, item in enumerate(rated, 1))
    items = "id,title\n" + "".join(f"{item},T{item}\n" for item in described)
    source = write(tmp_path, {"x.csv": text, "i.csv": items})
    options = ReadOptions(items=f"{source}/i.csv", allow_untitled=True)
    found = load_ratings(f"{source}/x.csv", options=options)
    notes = " ".join(found.interpretation.notes)
    if joined is not None:
        assert list(titles(found)) == joined
        assert all(title.startswith("T") for title, _, _ in titles(found).values())
        assert "are read as" in notes
    else:
        assert "1.0" in titles(found)
        assert "rated items" in notes


def test_many_items_without_metadata_are_an_error(tmp_path: Path) -> None:
    """Above a fifth, the ids of the two sides probably do not correspond."""
    items = "id,title\n1,A\nx,B\n"
    source = write(tmp_path, {"x.csv": RATINGS, "i.csv": items})
    options = ReadOptions(items=f"{source}/i.csv")
    message = r"1 of 2 rated items \(50.0%\) have no metadata, for example '2'.*--allow-untitled"
    with pytest.raises(RatingsError, match=message):
        load_ratings(f"{source}/x.csv", options=options)
    found = load_ratings(
        f"{source}/x.csv", options=ReadOptions(items=f"{source}/i.csv", allow_untitled=True)
    )
    assert titles(found)["2"] == ("2", 0, ())


def test_few_items_without_metadata_are_reported(tmp_path: Path) -> None:
    """Up to a fifth is reported in a note with the share."""
    text = "user,item,rating\n" + "".join(f"ann,{item},{1 + item % 5}\n" for item in range(10))
    items = "id,title\n" + "".join(f"{item},T{item}\n" for item in range(1, 10))
    source = write(tmp_path, {"x.csv": text, "i.csv": items})
    found = load_ratings(f"{source}/x.csv", options=ReadOptions(items=f"{source}/i.csv"))
    note = "1 of 10 rated items (10.0%) have no metadata, for example '0'"
    assert note in found.interpretation.notes


def test_an_item_that_is_described_again_keeps_its_first_description() -> None:
    """The number of further descriptions is reported."""
    frame = pl.DataFrame({"item": [1, 2, 1], "title": ["A", "B", "C"], "genres": [["X"], [], None]})
    items = read_items(FrameTable(frame, "frame"), "frame")
    assert items.metadata["1"] == ItemMetadata("A", 0, ("X",))
    assert items.notes[1].startswith("1 rows of frame describe an item again")


def test_a_table_without_item_ids_is_refused() -> None:
    """The error lists the columns of the table."""
    with pytest.raises(RatingsError, match="no column is recognised as item ids among 'colour'"):
        read_items(FrameTable(pl.DataFrame({"colour": ["red"]}), "frame"), "frame")


def test_genres_are_trimmed_and_distinct() -> None:
    """Labels that mean no genre are omitted."""
    assert split_genres(" Adventure|Comedy |Adventure| |unknown", "|") == ("Adventure", "Comedy")


GENRES = [f"Genre {n}" for n in range(33)]


def test_more_than_32_genres_are_loaded(tmp_path: Path) -> None:
    """Items can be found by each of the genres."""
    ratings = "".join(f"1,{n},{3 + n % 2},1\n" for n in range(33))
    movies = "".join(f"{n},Film {n} (2000),{genre}\n" for n, genre in enumerate(GENRES))
    source = write(
        tmp_path,
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n" + ratings,
            "movies.csv": "movieId,title,genres\n" + movies,
        },
    )
    catalogue = load_ratings(source).dataset.catalogue
    assert set(catalogue.genres) == set(GENRES)
    for n, genre in enumerate(GENRES):
        item = catalogue.items.index(str(n))
        assert catalogue.has_any_genre([genre.upper()]).nonzero()[0].tolist() == [item]
        assert catalogue.item_genres(item) == (genre,)


def test_ids_of_ratings_and_movies_are_joined_in_grouplens_files(tmp_path: Path) -> None:
    """No title or genre is lost because a spreadsheet wrote `1.0`."""
    source = write(
        tmp_path,
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,1.0,4.0,1\n1,2.0,3.5,2\n",
            "movies.csv": 'movieId,title,genres\n1,"Alpha, The (1999)",Comedy\n'
            "2,Beta (2001),Drama\n",
        },
    )
    found = load_ratings(source)
    assert titles(found)["1"] == ("The Alpha", 1999, ("Comedy",))
    assert found.interpretation.notes == ("item ids such as '1.0' in the ratings are read as '1'",)


def test_spaces_around_genres_do_not_make_genres(tmp_path: Path) -> None:
    """` Adventure` and `Adventure` are the same genre."""
    source = write(
        tmp_path,
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,1\n1,2,3.5,2\n",
            "movies.csv": "movieId,title,genres\n1,Alpha (1999), Adventure|Comedy\n"
            "2,Beta (2001),Adventure\n",
        },
    )
    assert load_ratings(source).dataset.catalogue.genres == ("Adventure", "Comedy")
