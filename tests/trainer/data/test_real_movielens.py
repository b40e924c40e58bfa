"""The real MovieLens data sets: counts, titles and folds. Skipped if they are not available."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from locations import REAL_DATA
from marquee_trainer.data.grouplens import load_grouplens
from marquee_trainer.data.grouplens_ratings import parse_ratings
from marquee_trainer.data.scale import RatingScale


def real(name: str) -> Path:
    """Return the path of a file or folder of the real data, or skip the test if it is missing."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


COUNTS = {
    "ml-100k": (100_000, 943, 1_682, 1_682, RatingScale(1.0, 5.0, 1.0)),
    "ml-1m-reassembled.zip": (1_000_209, 6_040, 3_706, 3_883, RatingScale(1.0, 5.0, 1.0)),
    "ml-latest-small.zip": (100_836, 610, 9_724, 9_742, RatingScale(0.5, 5.0, 0.5)),
}


@pytest.mark.parametrize(
    ("name", "ratings", "users", "rated", "movies", "scale"),
    [(name, *counts) for name, counts in COUNTS.items()],
)
def test_the_real_sets_have_their_published_counts(
    name: str, ratings: int, users: int, rated: int, movies: int, scale: RatingScale
) -> None:
    """No rating, user or movie of MovieLens is lost, including movies without ratings."""
    dataset = load_grouplens(real(name))[0]
    assert len(dataset) == ratings
    assert len(dataset.user_ids) == users
    assert len(np.unique(dataset.items)) == rated
    assert len(dataset.catalogue) == movies
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
    """Known movies have their usual titles in every format."""
    catalogue = load_grouplens(real(name))[0].catalogue
    index = catalogue.items.index(item)
    assert (catalogue.title(index), int(catalogue.years[index])) == (title, year)
    assert " ".join(catalogue.item_genres(index)) == genres


@pytest.mark.parametrize("fold", ["u2", "u3", "u4", "u5"])
def test_a_fold_splits_the_whole_set_as_its_files_do(fold: str) -> None:
    """The ratings of a fold are those of u.data: 80,000 to train on, 20,000 to test."""
    folder = real("ml-100k")
    # Without u1, because there are copies of u1.base with rescaled ratings.
    dataset, split, _ = load_grouplens(folder, f"{fold}.base", f"{fold}.test")
    assert split is not None
    assert (len(split.train), len(split.test)) == (80_000, 20_000)
    assert dataset.fingerprint() == load_grouplens(folder)[0].fingerprint()
    tested = parse_ratings((folder / f"{fold}.test").read_bytes(), f"{fold}.test")
    assert set(dataset.user_ids.ids(dataset.users[split.test])) == set(tested.users.texts())
    assert tested.timestamps is not None
    np.testing.assert_array_equal(
        np.sort(dataset.timestamps[split.test]), np.sort(tested.timestamps.array)
    )


def test_the_five_test_files_are_the_whole_set(tmp_path: Path) -> None:
    """The test files of the folds together contain each rating of u.data once."""
    folder = real("ml-100k")
    parts = [(folder / f"u{fold}.test").read_bytes() for fold in range(1, 6)]
    (tmp_path / "u.data").write_bytes(b"".join(parts))
    assert load_grouplens(tmp_path)[0].fingerprint() == load_grouplens(folder)[0].fingerprint()
