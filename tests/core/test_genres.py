"""Genres of a catalogue: any number of them can be stored, matched and saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marquee_core.catalogue import Catalogue, Vocabulary

GENRES = [f"Genre {number}" for number in range(70)]
rows = st.lists(st.lists(st.sampled_from(GENRES), max_size=6), min_size=1, max_size=20)


def catalogue_of(genres: list[list[str]]) -> Catalogue:
    """Return a catalogue of items with these genres."""
    items = Vocabulary.of(f"{item:02}" for item in range(len(genres)))
    return Catalogue.of(items, [""] * len(genres), [0] * len(genres), genres)


@settings(deadline=None)
@given(rows, st.lists(st.sampled_from([*GENRES, "none"]), max_size=4))
def test_items_are_matched_by_any_or_all_genres(genres: list[list[str]], wanted: list[str]) -> None:
    """Matching equals that of sets, for any number of genres and regardless of letter case."""
    catalogue = catalogue_of(genres)
    names = [name.upper() for name in wanted]
    assert catalogue.has_any_genre(names).tolist() == [bool({*row} & {*wanted}) for row in genres]
    assert catalogue.has_all_genres(names).tolist() == [{*wanted} <= {*row} for row in genres]
    for item, row in enumerate(genres):
        assert catalogue.item_genres(item) == tuple(sorted({*row}))
        assert catalogue.genre_matrix()[item].sum() == len({*row})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(genres=rows)
def test_genres_are_saved_and_loaded(genres: list[list[str]], tmp_path: Path) -> None:
    """The names of the genres are saved next to the arrays."""
    catalogue = catalogue_of(genres)
    catalogue.save(tmp_path)
    again = Catalogue.load(tmp_path, catalogue.genres)
    np.testing.assert_array_equal(again.genre_matrix(), catalogue.genre_matrix())


def test_genres_of_older_releases_are_loaded(tmp_path: Path) -> None:
    """Older releases have one 32-bit number per item."""
    catalogue = catalogue_of([["A", "J"], [], ["J"], [*"BCDEFGHI"]])
    catalogue.save(tmp_path)
    (tmp_path / "genre_matrix.npy").unlink()
    weights = 1 << np.arange(len(catalogue.genres))
    np.save(tmp_path / "genre_bits.npy", (catalogue.genre_matrix() @ weights).astype(np.uint32))
    again = Catalogue.load(tmp_path, catalogue.genres)
    np.testing.assert_array_equal(again.genre_matrix(), catalogue.genre_matrix())
