"""What items alone tell of users unknown in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_trainer.data.dataset import ItemDetails, RatingsDataset
from marquee_trainer.data.split import random_split, temporal_split
from marquee_trainer.metrics.rating_metrics import rating_metrics
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.studies.unknown_users import KNOWN_OF_ITEMS, items_alone
from marquee_trainer.training.train import Progress, TrainingConfig, release_data, train

USERS, EACH, ITEMS = 400, 20, 900
CONFIG = TrainingConfig()


@pytest.fixture(scope="module")
def dataset() -> RatingsDataset:
    """Users who come one after another, and rate items, most of them rare, as their genre is."""
    random = np.random.default_rng(0)
    good = np.arange(ITEMS) % 2 == 0
    users = np.repeat(np.arange(USERS), EACH)
    items = np.concatenate([random.permutation(ITEMS)[:EACH] for _ in range(USERS)])
    stars = np.clip(np.where(good[items], 4, 2) + random.integers(-1, 2, len(items)), 1, 5)
    details = {
        f"i{item}": ItemDetails("", 1990, ("Drama" if good[item] else "Horror",))
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


def test_what_is_known_of_items_is_weighed_for_unknown_users(dataset: RatingsDataset) -> None:
    """Genres tell of items with few ratings, and what is fitted to the test is the better bound."""
    split = temporal_split(dataset, dataset.file_order, 0.2)
    data = release_data(dataset, split.train, CONFIG.baseline)
    found = items_alone(dataset, split, data, CONFIG)
    assert found is not None
    assert found.ratings == USERS * EACH // 5
    assert tuple(found.honest) == tuple(found.bound) == KNOWN_OF_ITEMS
    *others, genres = (found.honest[name] for name in KNOWN_OF_ITEMS)
    assert genres < 0.97 * min(found.baseline, *others)
    assert all(found.bound[name] <= found.honest[name] for name in KNOWN_OF_ITEMS)
    # The baseline is the one that is served: of unknown users, the mean and the item's bias.
    rows = split.test
    served = data.baseline.score(data.matrix.profiles(dataset.users[rows]))
    wanted = served[np.arange(len(rows)), dataset.items[rows]]
    assert found.baseline == pytest.approx(
        rating_metrics(wanted, dataset.ratings[rows], dataset.scale).rmse
    )


def test_a_catalogue_without_genres_tells_what_else_there_is(dataset: RatingsDataset) -> None:
    """Ratings alone, without a file of items: no genre, no year, and nothing more is learned."""
    plain = RatingsDataset.of(
        dataset.user_ids.ids(dataset.users),
        dataset.catalogue.items.ids(dataset.items),
        dataset.ratings,
        dataset.timestamps,
        {},
        "made up",
    )
    split = temporal_split(plain, plain.file_order, 0.2)
    found = items_alone(plain, split, release_data(plain, split.train, CONFIG.baseline), CONFIG)
    assert found is not None
    without, *more = (found.honest[name] for name in KNOWN_OF_ITEMS[1:])
    assert more == pytest.approx([without, without])


def test_the_report_shows_it_where_there_is_something_to_show(
    dataset: RatingsDataset, tmp_path: Path
) -> None:
    """A row for each set of what is known of items, in a test by time alone."""
    title = "What items tell of unknown users"
    for split, shown in (
        (temporal_split(dataset, dataset.file_order, 0.2), True),
        (random_split(dataset.file_order, 0.2, 0), False),
    ):
        trained = train(dataset, split, (ItemCF,), CONFIG, Progress())
        page = write_evaluation_report(tmp_path, dataset, split, trained, CONFIG)
        text = page.read_text()
        assert (title in text) == shown
        assert all(name in text for name in KNOWN_OF_ITEMS) == shown


def test_where_training_knows_the_users_there_is_nothing_to_tell(dataset: RatingsDataset) -> None:
    """A random split leaves no user without training ratings."""
    split = random_split(dataset.file_order, 0.2, 0)
    data = release_data(dataset, split.train, CONFIG.baseline)
    assert items_alone(dataset, split, data, CONFIG) is None
