"""What was rated of late: how long it counts, and that it is learned, published and served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marquee_core.release.ensemble import RECENT_POPULARITY
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.popularity import popularity_scores
from marquee_services.gateway.releases.release import load_gateway_release
from marquee_trainer.commands.settings import SPLITS, DataSettings
from marquee_trainer.commands.train import publish
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split, split_by, temporal_split
from marquee_trainer.models.baselines import RecentlyPopular
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Model, Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.training.recency import RecencyConfig, choose_half_life
from marquee_trainer.training.train import (
    BaselineConfig,
    Progress,
    TrainingConfig,
    release_data,
    train,
    validation_split,
)

DAY_S = 86_400
MODELS: tuple[Callable[[], Model], ...] = (ItemCF, EASE)


def fashions(days_each: int) -> RatingsDataset:
    """Each user rates what is in fashion on one day; the fashion changes after so many days.

    Of 150 days the last 30 are the test's, and no fashion ends with day 120.
    """
    random = np.random.default_rng(0)
    users, items, times = [], [], []
    for user in range(300):
        day = user // 2
        shown = 10 * ((day + 40) // days_each) + random.permutation(10)[:6]
        noise = random.permutation(40)[:2] + 1_000
        for item in (*shown, *noise):
            users.append(f"u{user}")
            items.append(f"i{item}")
            times.append(day * DAY_S)
    stars = np.full(len(users), 4.0, np.float32)
    return RatingsDataset.of(users, items, stars, np.array(times), {}, "fashions")


@pytest.mark.parametrize(("days_each", "low", "high"), [(3, 0.0, 5.0), (1000, 50.0, 1000.0)])
def test_the_half_life_suits_how_fast_tastes_change(
    days_each: int, low: float, high: float
) -> None:
    """Quick fashions are forgotten quickly, what lasts is not."""
    dataset = fashions(days_each)
    inner = temporal_split(dataset, dataset.file_order, 0.2)
    assert low < choose_half_life(dataset, inner, 4.0, RecencyConfig()) <= high


def test_without_liked_items_the_longest_half_life_is_taken() -> None:
    """Then nothing speaks for forgetting."""
    dataset = fashions(3)
    inner = temporal_split(dataset, dataset.file_order, 0.2)
    assert choose_half_life(dataset, inner, 5.0, RecencyConfig()) == 1000.0


@pytest.mark.parametrize("kind", SPLITS)
def test_validation_ratings_are_cut_as_the_test_ratings_were(kind: str) -> None:
    """By time where the test is the latest, so that blends suit what they are tested on."""
    dataset = fashions(60)
    split = split_by(kind, dataset, dataset.file_order, 0.2, 0)
    assert split.kind == kind
    inner = validation_split(dataset, split, TrainingConfig())
    assert inner.kind == kind
    assert np.array_equal(np.sort(np.concatenate([inner.train, inner.test])), split.train)
    if kind == "temporal":
        assert dataset.timestamps[inner.train].max() <= dataset.timestamps[inner.test].min()


def test_recent_popularity_needs_to_be_told_what_was_rated_of_late() -> None:
    """Data without it has no such model."""
    dataset = fashions(3)
    data = release_data(dataset, dataset.file_order, BaselineConfig())
    with pytest.raises(ValueError, match="of late"):
        RecentlyPopular().fit(Training(data))


def test_what_is_in_fashion_is_learned_published_and_served(tmp_path: Path) -> None:
    """By time, its weight is most of the ensemble's, and it ranks what comes next."""
    dataset = fashions(60)
    split: Split = temporal_split(dataset, dataset.file_order, 0.2)
    trained = train(dataset, split, MODELS, TrainingConfig(), Progress())
    metrics = trained.evaluation.metrics
    assert metrics[RECENT_POPULARITY]["ndcg@10"] > 2 * metrics["popularity"]["ndcg@10"]
    assert metrics["ensemble"]["ndcg@10"] >= 0.95 * metrics[RECENT_POPULARITY]["ndcg@10"]
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish(store, dataset, split, trained, DataSettings())
    entry = next(model for model in manifest.models if model.name == RECENT_POPULARITY)
    assert trained.data.recency is not None
    assert entry.parameters == {"half_life_days": trained.data.recency.half_life_days}
    release = load_gateway_release(store, manifest.release_id, tmp_path / "cache")
    assert release.recent_popularity is not None
    expected = popularity_scores(trained.data.recency.counts)
    assert release.recent_popularity.tolist() == expected.tolist()
