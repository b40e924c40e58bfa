"""Predictions of ratings whose day is known, by Bayesian MF with time effects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_trainer.commands import evaluate
from marquee_trainer.commands.settings import EvaluateSettings
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.split import random_split
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.bayesian.random_effect import RandomEffect
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.studies.known_day import KnownDayConfig, evaluate_with_day
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.train import train

CHAIN = BayesianMFConfig(factors=4, sweeps=40, burn_in=10, samples=10)
DAY_S = 86_400


@pytest.fixture(scope="module")
def dataset() -> RatingsDataset:
    """A small sample in which each user's ratings were given on four days."""
    sample = generate_sample(SampleConfig(users=120, items=100, ratings=6000), seed=2)
    days = np.random.default_rng(0).integers(0, 4, len(sample))
    return replace(sample, timestamps=sample.users * 40 * DAY_S + days * DAY_S)


def gain(dataset: RatingsDataset) -> dict[str, float]:
    """Return the relative reduction of the test MSE when the day is known, by model."""
    split = random_split(dataset.file_order, 0.2, 0)
    config = TrainingConfig()
    trained = train(dataset, split, (ItemCF, lambda: BayesianMF(CHAIN)), config, Progress())
    found = evaluate_with_day(dataset, split, trained, config, KnownDayConfig(CHAIN), Progress())
    assert len(found.predictions) == len(split.test)
    return {
        name: 1 - row["test_mse"] / trained.evaluation.metrics[name]["test_mse"]
        for name, row in found.metrics.items()
    }


def test_effects_of_days_are_found(dataset: RatingsDataset) -> None:
    """If each user's days differ by a star from the mean, the day explains much of the error."""
    cells = dataset.users * 4 + (dataset.timestamps // DAY_S) % 40
    effects = np.random.default_rng(1).choice([-1.0, 1.0], int(cells.max()) + 1)
    with_effects = replace(
        dataset, ratings=np.clip(dataset.ratings + effects[cells], 1, 5).astype(np.float32)
    )
    found = gain(with_effects)
    assert found[BayesianMF.name] > 0.15
    assert found[ENSEMBLE] > 0.15


def test_days_without_effects_are_harmless(dataset: RatingsDataset) -> None:
    """The estimated effects are shrunk to nearly 0."""
    found = gain(dataset)
    assert found[BayesianMF.name] > -0.05
    assert found[ENSEMBLE] > -0.05


def test_ratings_without_timestamps_are_refused(dataset: RatingsDataset) -> None:
    """Without times all ratings would appear to be of one day, making the figures meaningless."""
    undated = replace(dataset, has_timestamps=False)
    with pytest.raises(RatingsError, match="have no timestamps"):
        gain(undated)


def test_ratings_without_timestamps_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`marquee evaluate --with-day` reports the error before it trains."""
    monkeypatch.setattr(evaluate, "train_all", lambda *_: pytest.fail("training began"))
    file = tmp_path / "ratings.csv"
    rows = [f"{u},{i},{stars}\n" for u in "ab" for stars, i in enumerate("xyz", start=3)]
    file.write_text("user,item,rating\n" + "".join(rows))
    with pytest.raises(RatingsError, match="--with-day requires timestamps"):
        evaluate.run_evaluation(EvaluateSettings(data=str(file), with_day=True))


def test_an_effect_is_drawn_around_its_posterior_mean() -> None:
    """The mean is Σ w e / (λ + Σ w) and the variance 1 / (λ + Σ w); unrated cells have 0."""
    random = np.random.default_rng(0)
    effect = RandomEffect(np.array([0, 0, 2]), 3, random)
    residuals, precisions = np.array([1.0, 2.0, -1.0]), np.array([2.0, 1.0, 3.0])
    drawn = []
    for _ in range(4000):
        effect.precision = 1.0
        effect.draw(residuals, precisions)
        drawn.append(effect.values)
    means, variances = np.mean(drawn, axis=0), np.var(drawn, axis=0)
    np.testing.assert_allclose(means, [4 / 4, 0.0, -3 / 4], atol=0.03)
    np.testing.assert_allclose(variances, [1 / 4, 0.0, 1 / 4], atol=0.02)
    np.testing.assert_array_equal(effect.part(), effect.values[[0, 0, 2]])
