"""GroupLens' files of movies, and titles as MovieLens writes them."""

from __future__ import annotations

import pytest

from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.grouplens_items import (
    GENRES_100K,
    parse_movies_csv,
    parse_movies_dat,
    parse_u_item,
)
from marquee_trainer.data.titles import split_title


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
def test_titles_are_converted_to_natural_order(text: str, title: str, year: int) -> None:
    """The article comes first, and the year is split off."""
    assert split_title(text) == (title, year)


def test_item_files_have_titles_years_and_genres() -> None:
    """All three formats are read, and the label for no genre is not a genre."""
    flags = ["1" if genre in ("Action", "War") else "0" for genre in GENRES_100K]
    u_item = "|".join(["7", "Postino, Il (1994)", "01-Jan-1994", "", "http://x", *flags])
    unknown = "|".join(["8", "unknown", "", "", "", "1", *["0"] * 18])
    metadata = parse_u_item(f"{u_item}\n{unknown}\n".encode("latin-1"), "u.item")
    assert (metadata["7"].title, metadata["7"].year) == ("Il Postino", 1994)
    assert metadata["7"].genres == ("Action", "War")
    assert metadata["8"].genres == ()
    metadata = parse_movies_csv(
        'movieId,title,genres\r\n7,"Postino, Il (1994)",Comedy|Drama\r\n'
        "8,Café (2010),(no genres listed)\r\n".encode(),
        "movies.csv",
    )
    assert (metadata["7"].title, metadata["7"].genres) == ("Il Postino", ("Comedy", "Drama"))
    assert (metadata["8"].title, metadata["8"].genres) == ("Café", ())


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movies_dat_is_read_in_either_encoding(encoding: str) -> None:
    """MovieLens 1M is in Latin-1, and 10M in UTF-8."""
    content = "7::Misérables, Les (1995)::Drama\n".encode(encoding)
    assert parse_movies_dat(content, "movies.dat")["7"].title == "Les Misérables"


def test_movies_csv_is_read_in_latin_1() -> None:
    """Files made by hand are often in the encoding of Windows."""
    metadata = parse_movies_csv(b"movieId,title,genres\n1,Caf\xe9 (2010), War | Drama\n", "m.csv")
    assert (metadata["1"].title, metadata["1"].genres) == ("Café", ("War", "Drama"))


def test_malformed_item_rows_are_named_by_line() -> None:
    """A movie that cannot be read is an error rather than omitted silently."""
    with pytest.raises(RatingsError, match=r"\(2\):\n  movies.dat:2: 2 fields.*\n.*3: item 1 is"):
        parse_movies_dat(b"1::A (1990)::War\n2::B\n1::C::War\n", "movies.dat")
    with pytest.raises(RatingsError, match=r"movies.csv:3: 2 fields, not 3"):
        parse_movies_csv(b"movieId,title,genres\n1,A,War\n2,B\n", "movies.csv")
    with pytest.raises(RatingsError, match=r"movies.csv:1: the header is not movieId"):
        parse_movies_csv(b"1,A,War\n2,B,War\n", "movies.csv")
    with pytest.raises(RatingsError, match=r"u.item:1: not 24 fields"):
        parse_u_item(b"1|A|||\n", "u.item")
