"""Cold start: users held out of training are folded in from some of their ratings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from marquee_core.release.ensemble import Blend, BlendPair, Ensemble
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.split import Split
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.studies.cold_start import ColdStartConfig, cold_start
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.evaluate import ENSEMBLE
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.train import train

CONFIG = TrainingConfig()


def train_quickly(dataset: RatingsDataset, split: Split) -> TrainingResult:
    """Train models with zero epochs."""
    return train(dataset, split, (UserCF, ItemCF, EASE), CONFIG, Progress())


def test_more_given_ratings_make_better_predictions(small_dataset: RatingsDataset) -> None:
    """The error of the ensemble falls, and with 10 ratings it is close to that of retraining."""
    found = cold_start(
        small_dataset,
        small_dataset.file_order,
        train_quickly,
        ColdStartConfig(user_fraction=0.3),
        CONFIG.relevant_stars,
        0,
    )
    assert found.given == (0, 1, 3, 5, 10, 20)
    curve = found.mse[ENSEMBLE]
    assert curve[-1] < curve[0]
    assert curve[4] == pytest.approx(found.retrained_mse[ENSEMBLE], rel=0.05)
    # Without ratings, both models fall back to the baseline of a user without ratings.
    assert found.mse["item_cf"][0] == pytest.approx(found.mse["user_cf"][0])
    with pytest.raises(RatingsError, match="no user has"):
        cold_start(
            small_dataset,
            small_dataset.file_order,
            train_quickly,
            ColdStartConfig(min_test_ratings=500),
            4.0,
            0,
        )


def test_visitors_without_ratings_are_ranked_by_the_gateways_baselines(
    small_dataset: RatingsDataset,
) -> None:
    """The gateway does the same, since it calls no backend for them."""

    def train_with_given_blends(dataset: RatingsDataset, split: Split) -> TrainingResult:
        trained = train_quickly(dataset, split)
        rating = Blend({"baseline": 1.0}, 0.0)
        pairs = {
            backends: BlendPair(rating, Blend({"ease" if backends else "popularity": 1.0}, 0.0))
            for backends in trained.ensemble.by_backends
        }
        return replace(trained, ensemble=Ensemble(pairs))

    config = ColdStartConfig(user_fraction=0.3, given=(0, 10))
    found = cold_start(
        small_dataset, small_dataset.file_order, train_with_given_blends, config, 4.0, 0
    )
    assert found.ndcg[ENSEMBLE] == (found.ndcg["popularity"][0], found.ndcg["ease"][1])
