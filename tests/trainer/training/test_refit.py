"""Refits on all ratings: what a release serves, and what its manifest reports as measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.release.contents import open_release
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.refit import refit_on_all_ratings
from marquee_trainer.training.results import TrainingResult

CONFIG = TrainingConfig()


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """The steps that the refit reported."""
    return []


@pytest.fixture(scope="module")
def refitted(
    small_dataset: RatingsDataset,
    small_split: Split,
    small_trained: TrainingResult,
    steps: list[str],
) -> TrainingResult:
    """The small models, refitted on all ratings."""
    progress = Progress(on_step=lambda name, _: steps.append(name))
    return refit_on_all_ratings(small_dataset, small_split, small_trained, CONFIG, progress)


def test_the_served_models_include_all_ratings(
    refitted: TrainingResult, small_dataset: RatingsDataset, small_split: Split
) -> None:
    """The matrix, the counts and recent popularity include training and test ratings."""
    matrix = refitted.served_data.matrix
    assert (
        matrix.rating_count == len(small_dataset) == len(small_split.train) + len(small_split.test)
    )
    np.testing.assert_array_equal(matrix.item_counts, small_dataset.by_user.item_counts)
    before, after = refitted.data.recency, refitted.served_data.recency
    assert before is not None
    assert after is not None
    assert after.half_life_days == before.half_life_days
    assert after.counts.sum() > before.counts.sum()


def test_the_choices_of_the_evaluation_are_kept(
    refitted: TrainingResult, small_trained: TrainingResult
) -> None:
    """Hyperparameters, blends and metrics are kept, while the models are new."""
    assert [model.parameters for model in refitted.served_models] == [
        model.parameters for model in small_trained.models
    ]
    assert refitted.ensemble is small_trained.ensemble
    assert refitted.evaluation is small_trained.evaluation
    profiles = refitted.data.matrix.profiles([0])
    for old, new in zip(small_trained.models, refitted.served_models, strict=True):
        assert not np.allclose(old.scorer.score(profiles), new.scorer.score(profiles)), old.name


def test_served_models_may_fold_known_users_in_on_request(refitted: TrainingResult) -> None:
    """Only the served models change, with the same scores, and the evaluated ones are kept."""
    folding = refitted.folding_on_request()
    assert folding.models is refitted.models
    profiles = refitted.served_data.matrix.profiles([0, 3])
    changed = set()
    for old, new in zip(refitted.served_models, folding.served_models, strict=True):
        changed |= {old.name} - ({new.name} if new is old else set())
        found, expected = new.scorer.score(profiles), old.scorer.score(profiles)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert changed == {"user_cf", "bayesian_mf"} & {model.name for model in refitted.models}


def test_each_refit_is_a_step_of_the_progress(refitted: TrainingResult, steps: list[str]) -> None:
    """There is one step per model, in order."""
    assert steps == [f"fit on all: {model.name}" for model in refitted.served_models]
    assert refitted.refit is not None
    assert list(refitted.refit.seconds) == [model.name for model in refitted.served_models]


def test_precomputed_pages_contain_no_rated_items(
    refitted: TrainingResult, small_dataset: RatingsDataset, small_split: Split, tmp_path: Path
) -> None:
    """This holds for all users and all their ratings in the training and test parts."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_trained(store, small_dataset, small_split, refitted, CONFIG)
    files, _ = open_release(store, manifest.release_id, "gateway", tmp_path / "cache")
    pages = PrecomputedPages.load(files.folder, manifest)
    items = small_dataset.catalogue.items
    shown = 0
    for user in range(len(small_dataset.user_ids)):
        page = pb.RecommendResponse.FromString(pages.get(user))
        recommended = {items.index(item.item_id) for item in page.items}
        assert not recommended & set(small_dataset.by_user.seen(user).tolist())
        shown += len(recommended)
    assert shown > len(small_dataset.user_ids)


@pytest.mark.parametrize("refit", [True, False])
def test_the_manifest_records_what_was_measured_and_what_is_served(
    refit: bool,
    refitted: TrainingResult,
    small_trained: TrainingResult,
    small_dataset: RatingsDataset,
    small_split: Split,
    tmp_path: Path,
) -> None:
    """Without a refit, the release serves the models that were measured."""
    store = ReleaseStore(str(tmp_path))
    trained = refitted if refit else small_trained
    manifest = publish_trained(store, small_dataset, small_split, trained, CONFIG)
    manifest = store.manifest(manifest.release_id)
    assert manifest.data.refitted is refit
    assert manifest.data.rating_count == len(small_dataset if refit else small_split.train)
    served = None if refit else small_split.train
    assert manifest.data.fingerprint == small_dataset.fingerprint(served)
    measured = manifest.evaluation
    assert measured["split"] == small_split.description
    assert measured["training_ratings"] == len(small_split.train)
    assert measured["test_ratings"] == len(small_split.test)
    assert measured["training_fingerprint"] == small_dataset.fingerprint(small_split.train)
    assert measured["seed"] == CONFIG.seed
