"""Predictions for users without training ratings from item features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.item_metadata import ItemMetadata
from marquee_trainer.data.split import random_split, temporal_split
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.studies.item_features import FEATURE_SETS
from marquee_trainer.studies.unknown_users import study_unknown_users
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import release_data
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.train import train

USERS, EACH, ITEMS = 400, 20, 900
CONFIG = TrainingConfig()


@pytest.fixture(scope="module")
def dataset() -> RatingsDataset:
    """Users arrive one after another, ratings depend on genres, and most items are rare."""
    random = np.random.default_rng(0)
    is_drama = np.arange(ITEMS) % 2 == 0
    users = np.repeat(np.arange(USERS), EACH)
    items = np.concatenate([random.permutation(ITEMS)[:EACH] for _ in range(USERS)])
    stars = np.clip(np.where(is_drama[items], 4, 2) + random.integers(-1, 2, len(items)), 1, 5)
    details = {
        f"i{item}": ItemMetadata("", 1990, ("Drama" if is_drama[item] else "Horror",))
        for item in range(ITEMS)
    }
    return RatingsDataset.of(
        [f"u{user}" for user in users],
        [f"i{item}" for item in items],
        stars.astype(np.float32),
        np.arange(len(users), dtype=np.int64),
        details,
        "made up",
    )


def test_item_features_improve_on_the_baseline_for_unknown_users(dataset: RatingsDataset) -> None:
    """Genres help with rare items, and the oracle is never worse than the validation fit."""
    split = temporal_split(dataset, dataset.file_order, 0.2)
    data = release_data(dataset, split.train, CONFIG.baseline)
    found = study_unknown_users(dataset, split, data, CONFIG)
    assert found is not None
    assert found.ratings == USERS * EACH // 5
    assert tuple(found.validation_fitted) == tuple(found.oracle) == FEATURE_SETS
    *others, genres = (found.validation_fitted[name] for name in FEATURE_SETS)
    assert genres < 0.97 * min(found.baseline, *others)
    assert all(found.oracle[name] <= found.validation_fitted[name] for name in FEATURE_SETS)
    # The baseline equals that of the services, which is μ + b_i for unknown users.
    rows = split.test
    served = data.baseline.score(data.matrix.profiles(dataset.users[rows]))
    expected = served[np.arange(len(rows)), dataset.items[rows]]
    assert found.baseline == pytest.approx(
        rating_metrics(expected, dataset.ratings[rows], dataset.scale).rmse
    )


def test_a_catalogue_without_years_and_genres_adds_no_information(dataset: RatingsDataset) -> None:
    """Feature sets with years and genres then perform like the one with means and counts."""
    plain = RatingsDataset.of(
        dataset.user_ids.ids(dataset.users),
        dataset.catalogue.items.ids(dataset.items),
        dataset.ratings,
        dataset.timestamps,
        {},
        "made up",
    )
    split = temporal_split(plain, plain.file_order, 0.2)
    found = study_unknown_users(
        plain, split, release_data(plain, split.train, CONFIG.baseline), CONFIG
    )
    assert found is not None
    without, *larger = (found.validation_fitted[name] for name in FEATURE_SETS[1:])
    assert larger == pytest.approx([without, without])


def test_the_report_has_a_section_only_if_enough_users_are_unknown(
    dataset: RatingsDataset, tmp_path: Path
) -> None:
    """A split by time has a row for each feature set, and a random split has no section."""
    title = "Unknown users: what item features can predict"
    for split, shown in (
        (temporal_split(dataset, dataset.file_order, 0.2), True),
        (random_split(dataset.file_order, 0.2, 0), False),
    ):
        trained = train(dataset, split, (ItemCF,), CONFIG, Progress())
        page = write_evaluation_report(tmp_path, dataset, split, trained, CONFIG)
        text = page.read_text()
        assert (title in text) == shown
        assert all(name in text for name in FEATURE_SETS) == shown


def test_there_is_no_result_without_unknown_users(dataset: RatingsDataset) -> None:
    """A random split leaves no user without training ratings."""
    split = random_split(dataset.file_order, 0.2, 0)
    data = release_data(dataset, split.train, CONFIG.baseline)
    assert study_unknown_users(dataset, split, data, CONFIG) is None
