"""Which users of a large data set are evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.publishing.held_out import HeldOutEvaluation
from marquee_trainer.reporting.report import write_evaluation_report
from marquee_trainer.training import sampling
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.sampling import scored_users
from marquee_trainer.training.train import train

USERS = np.arange(0, 3_000_000, 3, dtype=np.int32)


def test_all_users_of_moderate_data_are_scored() -> None:
    """MovieLens 100K and 1M are evaluated completely."""
    for users, items, ratings in ((943, 1_682, 80_000), (6_040, 3_706, 900_000)):
        assert len(scored_users(USERS[:users], items, ratings, 0)) == users


def test_pairs_grow_with_the_ratings_of_large_data() -> None:
    """In large data, a sample of users is scored so that pairs are proportional to ratings."""
    found = scored_users(USERS, 60_000, 25_000_000, 0)
    assert len(found) * 60_000 == pytest.approx(25 * 25_000_000, rel=0.01)
    assert (np.diff(found) > 0).all()
    assert np.isin(found, USERS).all()
    np.testing.assert_array_equal(found, scored_users(USERS, 60_000, 25_000_000, 0))


def test_a_sample_of_the_users_is_evaluated_throughout(
    small_dataset: RatingsDataset,
    small_split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Metrics, predictions, the report and the held-out part of a release cover the same users."""
    items = len(small_dataset.catalogue)
    monkeypatch.setattr(sampling, "_ALL_PAIRS", 12 * items)
    monkeypatch.setattr(sampling, "_PAIRS_PER_RATING", 0)
    config = TrainingConfig()
    trained = train(small_dataset, small_split, [ItemCF], config, Progress())
    evaluation = trained.evaluation
    rows = evaluation.rows(small_split)
    assert len(np.unique(small_dataset.users[rows])) == 12
    errors = evaluation.predictions[ENSEMBLE].clip(1, 5) - small_dataset.ratings[rows]
    assert evaluation.metrics[ENSEMBLE]["test_mse"] == pytest.approx(float(np.mean(errors**2)))
    held_out = HeldOutEvaluation.of(small_dataset, small_split, trained)
    np.testing.assert_array_equal(held_out.users, np.unique(small_dataset.users[rows]))
    assert len(held_out.predicted) == len(rows)
    page = write_evaluation_report(tmp_path, small_dataset, small_split, trained, config)
    assert f"{len(rows):,} test ratings of a random sample" in page.read_text()
