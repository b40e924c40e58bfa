"""Releases that fold known users in answer as those that store the users' parameters do."""

from __future__ import annotations

from pathlib import Path

import pytest

from marquee import Recommendations
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import random_split
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.publishing.config import PrecomputeConfig
from marquee_trainer.publishing.release import publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.train import train
from toy.trained_services import serve_trained

USERS, ITEMS = 40, 30
ENSEMBLE = ""
LISTS: tuple[tuple[str, float], ...] = (
    (ENSEMBLE, 0.0),
    (ENSEMBLE, 0.3),
    ("user_cf", 0.0),
    ("bayesian_mf", 0.0),
)


def size(manifest: Manifest, model: str) -> int:
    """Return the size of the files of a model, in bytes."""
    return sum(file.size for path, file in manifest.files.items() if f"/{model}/" in path)


async def lists(store: ReleaseStore, folder: Path) -> list[Recommendations]:
    """Return each user's lists, as a gateway and its backend serve them."""
    async with serve_trained(store, folder) as client:
        found = [
            await client.recommend(f"u{user}", model=model, diversity=diversity)
            for user in range(1, USERS + 1)
            for model, diversity in LISTS
        ]
    assert not any(page.source.degraded for page in found)
    return found


async def test_lists_are_the_same_without_parameters_per_user(tmp_path: Path) -> None:
    """The release is smaller, and each user's lists and stars are the same for all models."""
    dataset = generate_sample(SampleConfig(users=USERS, items=ITEMS, ratings=600), seed=5)
    split = random_split(dataset.file_order, 0.2, 0)
    config = TrainingConfig.for_dataset(dataset)
    sampled = BayesianMFConfig(factors=4, sweeps=8, burn_in=2, samples=4)
    makers = (UserCF, lambda: BayesianMF(sampled), EASE)
    trained = train(dataset, split, makers, config, Progress())
    found, manifests = [], []
    for name, result in (("stored", trained), ("folded", trained.folding_on_request())):
        store = ReleaseStore(str(tmp_path / name))
        # Precomputed pages would be those of the models with the users' parameters or without.
        manifest = publish_trained(
            store, dataset, split, result, config, precompute=PrecomputeConfig(users=0)
        )
        store.promote(manifest.release_id)
        manifests.append(manifest)
        found.append(await lists(store, tmp_path / name))
    stored, folded = manifests
    for model in ("user_cf", "bayesian_mf"):
        assert size(folded, model) < size(stored, model)
    assert size(folded, "ease") == size(stored, "ease") > 0
    for expected, actual in zip(*found, strict=True):
        assert len(expected) > 0
        assert [item.item_id for item in actual] == [item.item_id for item in expected]
        assert [item.score for item in actual] == pytest.approx(
            [item.score for item in expected], rel=1e-4
        )
        assert [item.predicted_stars for item in actual] == pytest.approx(
            [item.predicted_stars for item in expected], rel=1e-4
        )
