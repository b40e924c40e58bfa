"""Publishing: the content of the manifest."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

from marquee_core.release.store import ReleaseStore
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.publishing.config import PrecomputeConfig
from marquee_trainer.publishing.release import data_entry, publish_trained
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.results import TrainingResult

CONFIG = TrainingConfig()


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


def test_the_manifest_records_the_dislikes_that_the_models_were_fitted_with(
    small_dataset: RatingsDataset, small_trained: TrainingResult
) -> None:
    """Servers would otherwise take ratings for likes that the models took for dislikes."""
    data, rows = small_trained.served_data, small_dataset.file_order
    assert math.isfinite(data.dislike_limit)
    assert data_entry(small_dataset, data, rows).dislike_limit == data.dislike_limit
    without = replace(data, dislike_limit=-math.inf)
    assert data_entry(small_dataset, without, rows).dislike_limit is None
