"""Publishing: the content of the manifest, and whose first pages are precomputed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.release.ensemble import BASELINE
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.baselines import fitted_baselines
from marquee_trainer.publishing.config import PrecomputeConfig
from marquee_trainer.publishing.precomputed import precompute_pages
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult

CONFIG = TrainingConfig()
USERS = 10


@pytest.fixture(scope="module")
def pages(small_dataset: RatingsDataset, small_trained: TrainingResult) -> PrecomputedPages:
    """The first pages of the ten most active users."""
    return precompute(small_dataset, small_trained, PrecomputeConfig(users=USERS, block_scores=250))


def precompute(
    dataset: RatingsDataset, trained: TrainingResult, config: PrecomputeConfig
) -> PrecomputedPages:
    """Precompute pages with all models and baselines."""
    return precompute_pages(
        trained.data,
        dataset.catalogue.items,
        (*trained.models, *fitted_baselines(trained.data)),
        trained.ensemble,
        (dataset.scale.low, dataset.scale.high),
        config,
    )


def test_the_most_active_users_have_a_page(
    pages: PrecomputedPages, small_trained: TrainingResult
) -> None:
    """As many users as configured have a page, and no other user has more ratings."""
    counts = np.diff(small_trained.data.matrix.indptr)
    has_page = np.array([bool(pages.get(user)) for user in range(len(counts))])
    assert has_page.sum() == USERS
    assert counts[has_page].min() >= counts[~has_page].max()


def test_a_page_ranks_unseen_items_with_the_ensemble(
    pages: PrecomputedPages, small_dataset: RatingsDataset, small_trained: TrainingResult
) -> None:
    """The items and scores are those of the ranking blend, best first."""
    data = small_trained.data
    user = int(np.argmax(np.diff(data.matrix.indptr)))
    page = pb.RecommendResponse.FromString(pages.get(user))
    models = (*small_trained.models, *fitted_baselines(data))
    scores = {m.name: m.scorer.score(data.matrix.profiles([user]))[0] for m in models}
    assert BASELINE in scores
    blends = small_trained.ensemble.blends(["cf"])
    expected = blends.ranking.apply(scores)
    expected[data.matrix.seen(user)] = -np.inf
    best = np.sort(expected)[::-1][: len(page.items)]
    assert len(page.items) == min(DEFAULT_PAGE_SIZE, int(np.isfinite(expected).sum()))
    assert [item.score for item in page.items] == pytest.approx(best.tolist(), rel=1e-5)
    places = [small_dataset.catalogue.items.index(item.item_id) for item in page.items]
    assert expected[places] == pytest.approx(best, rel=1e-5)


def test_large_catalogues_have_no_precomputed_pages(
    small_dataset: RatingsDataset, small_trained: TrainingResult
) -> None:
    """In large catalogues the gateway retrieves candidates, so its own answers would differ."""
    found = precompute(small_dataset, small_trained, PrecomputeConfig(max_items=10))
    assert not len(found.answers)


def test_the_manifest_records_data_protocol_and_metrics(
    small_dataset: RatingsDataset, small_split: Split, small_trained: TrainingResult, tmp_path: Path
) -> None:
    """It records the training data, the evaluation protocol and the metrics of every model."""
    store = ReleaseStore(str(tmp_path))
    manifest = publish_trained(
        store,
        small_dataset,
        small_split,
        small_trained,
        CONFIG,
        precompute=PrecomputeConfig(users=0),
    )
    assert store.ids() == [manifest.release_id]
    assert store.production() is None
    assert manifest.data.fingerprint == small_dataset.fingerprint(small_split.train)
    assert manifest.data.rating_count == len(small_split.train)
    metrics = small_trained.evaluation.metrics
    assert manifest.evaluation["split"] == small_split.description
    assert manifest.evaluation["test_ratings"] == len(small_split.test)
    assert manifest.evaluation["training"] == asdict(CONFIG)
    assert manifest.evaluation["ensemble_metrics"] == metrics[ENSEMBLE]
    assert {model.name: model.metrics for model in manifest.models} == {
        name: row for name, row in metrics.items() if name != ENSEMBLE
    }
