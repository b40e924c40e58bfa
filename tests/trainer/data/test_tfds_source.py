"""MovieLens through TensorFlow Datasets, compared with reading the same archive directly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from locations import REAL_DATA
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.scale import RatingScale
from marquee_trainer.data.source import load_ratings

CONFIG = "movielens/latest-small-ratings"
ARCHIVE = REAL_DATA / "ml-latest-small.zip"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> RatingsDataset:
    """MovieLens latest-small as TensorFlow Datasets prepares it from the archive."""
    if not ARCHIVE.is_file():
        pytest.skip("ml-latest-small.zip is not in ../shared/data")
    archives = tmp_path_factory.mktemp("archives")
    shutil.copy(ARCHIVE, archives)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARQUEE_TFDS_DIR", str(tmp_path_factory.mktemp("tfds")))
        return load_ratings(CONFIG, manual_dir=str(archives)).dataset


@pytest.fixture(scope="module")
def direct(prepared: RatingsDataset) -> RatingsDataset:
    """The same archive, read without TensorFlow Datasets."""
    return load_ratings(str(ARCHIVE)).dataset


def test_the_ratings_are_those_of_the_archive(
    prepared: RatingsDataset, direct: RatingsDataset
) -> None:
    """Users, items, ratings, times and fingerprints are equal."""
    assert len(prepared) == 100_836
    for name in ("users", "ratings", "timestamps"):
        np.testing.assert_array_equal(getattr(prepared, name), getattr(direct, name))
    assert prepared.fingerprint() == direct.fingerprint()


def test_users_and_items_have_the_archives_ids(
    prepared: RatingsDataset, direct: RatingsDataset
) -> None:
    """The ids are those of MovieLens as text, and movies without ratings are missing."""
    every_user = range(610)
    assert (len(prepared.user_ids), len(prepared.catalogue)) == (610, 9724)
    assert prepared.user_ids.ids(every_user) == direct.user_ids.ids(every_user)
    rated = np.unique(direct.items)
    assert prepared.catalogue.items.ids(range(9724)) == direct.catalogue.items.ids(rated)
    np.testing.assert_array_equal(rated[prepared.items], direct.items)


def test_titles_years_and_genres_are_those_of_the_archive(
    prepared: RatingsDataset, direct: RatingsDataset
) -> None:
    """Both ways of reading result in the same metadata."""
    assert prepared.catalogue.genres == direct.catalogue.genres
    rated = np.unique(direct.items)
    np.testing.assert_array_equal(prepared.catalogue.years, direct.catalogue.years[rated])
    for item, other in enumerate(rated.tolist()):
        assert prepared.catalogue.title(item) == direct.catalogue.title(other)
        assert prepared.catalogue.item_genres(item) == direct.catalogue.item_genres(other)


def test_half_stars_are_kept(prepared: RatingsDataset) -> None:
    """The newer scale has half stars from 0.5 to 5, and all of them occur."""
    assert prepared.scale == RatingScale(0.5, 5.0, 0.5)
    assert np.unique(prepared.ratings).tolist() == [half / 2 for half in range(1, 11)]


def test_the_file_order_is_a_permutation(prepared: RatingsDataset) -> None:
    """A random split contains each example once."""
    np.testing.assert_array_equal(np.sort(prepared.file_order), np.arange(len(prepared)))


def test_a_config_without_ratings_is_refused(tmp_path: Path) -> None:
    """A config of movies has no ratings."""
    with pytest.raises(RatingsError, match="latest-small-movies is not a config of ratings"):
        load_ratings("movielens/latest-small-movies", cache=tmp_path)


def test_a_missing_folder_of_archives_is_named(tmp_path: Path) -> None:
    """A mistyped folder does not start a download."""
    with pytest.raises(RatingsError, match=r"there is no .*absent"):
        load_ratings(CONFIG, manual_dir=str(tmp_path / "absent"), cache=tmp_path)


def test_an_unknown_config_is_an_error(tmp_path: Path) -> None:
    """The library's exception becomes a RatingsError that names the config."""
    with pytest.raises(RatingsError, match="movielens/9z-ratings is not known"):
        load_ratings("movielens/9z-ratings", cache=tmp_path)
