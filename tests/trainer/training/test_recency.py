"""Recent popularity: its half-life is chosen, and it is learned, published and served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from marquee_core.release.ensemble import RECENT_POPULARITY
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.popularity import popularity_scores
from marquee_services.gateway.releases.release import load_gateway_release
from marquee_trainer.commands.settings import SPLITS
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split, split_by, temporal_split
from marquee_trainer.models.baselines import RecentlyPopular
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Model, Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import BaselineConfig, TrainingConfig
from marquee_trainer.training.preparation import release_data, validation_split
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.recency import RecencyConfig, choose_half_life
from marquee_trainer.training.train import train

DAY_S = 86_400
MODELS: tuple[Callable[[], Model], ...] = (ItemCF, EASE)


def fashions(days_each: int) -> RatingsDataset:
    """Return ratings of items that are in fashion when they are rated, for `days_each` days each.

    There are 150 days. A temporal 80/20 split puts the last 30 into the test part, and no fashion
    ends at the boundary.
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
def test_the_half_life_matches_how_fast_fashions_change(
    days_each: int, low: float, high: float
) -> None:
    """The half-life is short for short fashions and long for lasting ones."""
    dataset = fashions(days_each)
    inner = temporal_split(dataset, dataset.file_order, 0.2)
    assert low < choose_half_life(dataset, inner, 4.0, RecencyConfig()) <= high


def test_the_longest_half_life_is_chosen_without_relevant_items() -> None:
    """Without relevant items, there is no evidence for a shorter one."""
    dataset = fashions(3)
    inner = temporal_split(dataset, dataset.file_order, 0.2)
    assert choose_half_life(dataset, inner, 5.0, RecencyConfig()) == 1000.0


@pytest.mark.parametrize("kind", SPLITS)
def test_the_validation_part_is_split_like_the_test_part(kind: str) -> None:
    """For example, a split by time learns the blends under the conditions of the test."""
    dataset = fashions(60)
    split = split_by(kind, dataset, dataset.file_order, 0.2, 0)
    assert split.kind == kind
    inner = validation_split(dataset, split, TrainingConfig())
    assert inner.kind == kind
    assert np.array_equal(np.sort(np.concatenate([inner.train, inner.test])), split.train)
    if kind == "temporal":
        assert dataset.timestamps[inner.train].max() <= dataset.timestamps[inner.test].min()


def test_recent_popularity_cannot_be_fitted_without_recency() -> None:
    """Release data without recent popularity is refused with an error."""
    dataset = fashions(3)
    data = release_data(dataset, dataset.file_order, BaselineConfig())
    with pytest.raises(ValueError, match="no recency-weighted rating counts"):
        RecentlyPopular().fit(Training(data))


def test_recent_popularity_is_learned_published_and_served(tmp_path: Path) -> None:
    """Under a split by time it beats popularity, and the ensemble ranks about as well."""
    dataset = fashions(60)
    split: Split = temporal_split(dataset, dataset.file_order, 0.2)
    trained = train(dataset, split, MODELS, TrainingConfig(), Progress())
    metrics = trained.evaluation.metrics
    assert metrics[RECENT_POPULARITY]["ndcg@10"] > 2 * metrics["popularity"]["ndcg@10"]
    assert metrics["ensemble"]["ndcg@10"] >= 0.95 * metrics[RECENT_POPULARITY]["ndcg@10"]
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_trained(store, dataset, split, trained, TrainingConfig())
    entry = next(model for model in manifest.models if model.name == RECENT_POPULARITY)
    assert trained.data.recency is not None
    assert entry.parameters == {"half_life_days": trained.data.recency.half_life_days}
    release = load_gateway_release(store, manifest.release_id, tmp_path / "cache")
    assert release.recent_popularity is not None
    expected = popularity_scores(trained.data.recency.counts)
    assert release.recent_popularity.tolist() == expected.tolist()
