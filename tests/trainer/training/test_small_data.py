"""Tiny and unusual data: an error before anything is fitted, or a usable model."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.split import automatic_split, split_by
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.refit import refit_on_all_ratings
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.train import train


def random_ratings(count: int, levels: list[float], users: int = 5) -> RatingsDataset:
    """Return ratings of a few items, one per second, that cycle through the given levels."""
    random = np.random.default_rng(count)
    cells = random.permutation(users * count)[:count]
    return RatingsDataset.of(
        [f"u{cell % users}" for cell in cells],
        [f"i{cell // users}" for cell in cells],
        np.resize(np.array(levels, np.float32), count),
        np.arange(count, dtype=np.int64),
        {},
        "test",
        on_repeat="last",
    )


def trained_on(dataset: RatingsDataset, steps: list[str]) -> TrainingResult:
    """Train two rankers and a rating predictor with the default split, and refit them."""
    kind = automatic_split(dataset, dataset.file_order, 0.2)
    split = split_by(kind, dataset, dataset.file_order, 0.2, 0)
    config = TrainingConfig.for_dataset(dataset)
    progress = Progress(on_step=lambda name, _: steps.append(name))
    trained = train(dataset, split, (EASE, IALS, ItemCF), config, progress)
    return refit_on_all_ratings(dataset, split, trained, config, progress)


@pytest.mark.parametrize("count", [1, 2, 5, 19])
def test_too_few_ratings_are_refused_before_anything_is_fitted(count: int) -> None:
    """The error has the required number of ratings."""
    steps: list[str] = []
    with pytest.raises(RatingsError, match=r"too few .* at least 20 are needed"):
        trained_on(random_ratings(count, [4, 3, 5, 2]), steps)
    assert not steps


@pytest.mark.parametrize("count", [20, 23, 30, 60])
@pytest.mark.parametrize("levels", [[1, 2, 3], [4, 3, 5, 2], [1], [0, 1], [10, 90, 55]])
def test_small_data_is_learned_from_or_refused_in_one_sentence(
    count: int, levels: list[float]
) -> None:
    """Scores of a small release are finite on any scale, even if no rating is 4 or more."""
    steps: list[str] = []
    trained, refused = None, ""
    try:
        trained = trained_on(random_ratings(count, levels), steps)
    except RatingsError as error:
        refused = str(error)
    if trained is None:
        assert refused.count("\n") == 0
        assert not steps
        return
    profiles = trained.served_data.matrix.all_profiles()
    for model in trained.served_models:
        assert np.isfinite(model.scorer.score(profiles)).all(), model.name
    assert trained.ensemble.blends(["cf"]).ranking.weights


def test_users_with_a_single_item_each_are_refused() -> None:
    """There is nothing to rank, and nothing to compare a user with."""
    count = 40
    one_item = RatingsDataset.of(
        [f"u{n}" for n in range(count)],
        ["i"] * count,
        np.resize(np.array([3, 4], np.float32), count),
        None,
        {},
        "test",
    )
    with pytest.raises(RatingsError, match="of one item"):
        trained_on(one_item, [])
