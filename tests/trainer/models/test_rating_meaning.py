"""The effect of ratings on all models together, on the sample and on MovieLens 100K.

The ranking is a blend of EASE and iALS with equal shares, the models with which the learned
ensemble ranks MovieLens 100K. Predicted stars are those of item CF and Bayesian MF.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from locations import REAL_DATA
from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.ratings import Profiles
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.ease import EASEConfig
from marquee_core.scorers.ials import IALSConfig
from marquee_core.scorers.scorer import ComparesItems, ReleaseData, Scorer
from marquee_trainer.data.sample import SampleConfig, generate_sample
from marquee_trainer.data.source import load_ratings
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import release_data

TOP = 10
VISITORS = 20
POPULAR = 200  # The number of most-rated items from which visitors rate some.


def similarities(scorer: Scorer, item: int) -> Float32:
    """The similarities of an item to all items."""
    assert isinstance(scorer, ComparesItems)
    return scorer.similarities(item)


@dataclass(frozen=True)
class Fitted:
    """Models fitted on all ratings of a data set.

    Attributes:
        data: The ratings.
        item_cf: Item CF, which determines the neighbours of items.
        predictors: The rating predictors.
        rankers: The rankers, with their weights in the blend.
    """

    data: ReleaseData
    item_cf: Scorer
    predictors: tuple[Scorer, ...]
    rankers: tuple[tuple[Scorer, float], ...]

    def blend(self, profile: Profiles) -> Float64:
        """Return the ranking scores for a profile (float64, items); rated items score −∞."""
        total = np.zeros(self.data.matrix.item_count)
        for scorer, weight in self.rankers:
            total += weight * scorer.score(profile)[0]
        total[profile.items] = -np.inf
        return total

    def best(self, profile: Profiles) -> set[int]:
        """Return the top 10 for a profile."""
        return set(np.argsort(-self.blend(profile), kind="stable")[:TOP].tolist())

    def visitor(self, items: Int32, stars: float) -> Profiles:
        """Return a visitor who gives the same stars to all items."""
        return self.data.matrix.profile(-1, items, np.full(len(items), stars, np.float32))

    def popular(self) -> Int32:
        """Return the items from the most to the least often rated."""
        order = np.argsort(-self.data.matrix.item_counts, kind="stable")
        return order.astype(np.int32)

    def nearest(self, item: int, count: int) -> Int32:
        """Return the items most similar to an item in the first ranker."""
        row = similarities(self.rankers[0][0], item)
        row[item] = -np.inf
        return np.argsort(-row, kind="stable")[:count].astype(np.int32)


@pytest.fixture(scope="module", params=["sample", "ml-100k"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    """The models, fitted on each data set with suitable hyperparameters."""
    if request.param == "ml-100k":
        folder = REAL_DATA / "ml-100k"
        if not folder.is_dir():
            pytest.skip(f"there is no {folder}")
        dataset = load_ratings(str(folder)).dataset
    else:
        dataset = generate_sample(SampleConfig(), seed=0)
    data = release_data(dataset, dataset.file_order, TrainingConfig().baseline)
    config = EASEConfig(
        minimum_stars=4.0, indifference=0.4, activity_damping=0.5, regularisation=38.5
    )
    factors = IALSConfig(factors=64, unobserved_weight=0.103, regularisation=0.0255, sweeps=5)
    bayesian = BayesianMFConfig(factors=6, sweeps=24, burn_in=12, samples=6)
    models = (ItemCF(), BayesianMF(bayesian), EASE(config), IALS(factors))
    for model in models:
        model.fit(Training(data))
    item_cf, bayesian_mf, ease, ials = (model.scorer for model in models)
    return Fitted(data, item_cf, (item_cf, bayesian_mf), ((ease, 1.0), (ials, 1.0)))


def test_a_higher_rating_never_lowers_its_neighbours_on_average(fitted: Fitted) -> None:
    """One rating is raised star by star, and the predicted stars of its nearest neighbours rise.

    The neighbours are the five nearest by item CF. The users are known users with a new rating.
    """
    random = np.random.default_rng(0)
    users = random.choice(fitted.data.matrix.user_count, VISITORS, replace=False)
    items = random.choice(fitted.popular()[:POPULAR], VISITORS, replace=False)
    changes: list[list[Float32]] = [[] for _ in fitted.predictors]
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        row = similarities(fitted.item_cf, item)
        row[item] = 0.0
        near = np.argsort(-row, kind="stable")[:5].astype(np.int32)
        for scorer, found in zip(fitted.predictors, changes, strict=True):
            stars = [
                scorer.score(
                    fitted.data.matrix.profile(
                        user, np.array([item], np.int32), np.array([given], np.float32)
                    ),
                    near,
                )[0]
                for given in (1, 2, 3, 4, 5)
            ]
            found.append(np.diff(np.stack(stars), axis=0).mean(axis=1))
    for found in changes:
        assert (np.stack(found).mean(axis=0) > 0).all()
        assert (np.stack(found).mean(axis=1) >= 0).mean() >= 0.9


def test_one_star_and_five_stars_give_different_lists(fitted: Fitted) -> None:
    """Changing a visitor's five ratings from 5 stars to 1 changes at least half of the top 10."""
    random = np.random.default_rng(1)
    for _ in range(VISITORS):
        items = random.choice(fitted.popular()[:POPULAR], 5, replace=False).astype(np.int32)
        liked, disliked = (fitted.best(fitted.visitor(items, stars)) for stars in (5.0, 1.0))
        assert len(liked - disliked) >= TOP / 2


def test_only_dislikes_give_popular_items_that_are_dissimilar(fitted: Fitted) -> None:
    """The list for 1-star ratings is less similar to them than the most popular items are.

    A visitor dislikes an item and the four most similar ones. Similarity is the mean over all pairs
    of a rated and a listed item, by the first ranker and by item CF. The list is popular: its items
    are rated more often than most.
    """
    random = np.random.default_rng(2)
    counts = fitted.data.matrix.item_counts
    nearer, popular = [], []
    for item in random.choice(fitted.popular()[:POPULAR], VISITORS, replace=False).tolist():
        rated = np.append(fitted.nearest(item, 4), item).astype(np.int32)
        listed = sorted(fitted.best(fitted.visitor(rated, 1.0)))
        plain = np.setdiff1d(fitted.popular()[: TOP + 5], rated, assume_unique=True)[:TOP]
        for scorer in (fitted.rankers[0][0], fitted.item_cf):
            rows = [similarities(scorer, one) for one in rated.tolist()]
            square = np.stack(rows)
            nearer.append(square[:, listed].mean() - square[:, plain].mean())
        popular.append(float((counts < counts[listed].mean()).mean()))
    assert np.mean(nearer) < 0
    assert np.mean(np.array(nearer) <= 0) >= 0.9
    assert np.mean(popular) > 0.7


def test_a_dislike_moves_similar_items_down(fitted: Fitted) -> None:
    """If known users rate their first recommendation, 1 star lowers similar items and 5 raise them.

    After 1 star, the top 10 has no more of the five most similar items than before.
    """
    random = np.random.default_rng(3)
    users = random.choice(fitted.data.matrix.user_count, 2 * VISITORS, replace=False)
    moved: dict[float, list[float]] = {1.0: [], 5.0: []}
    listed = {0.0: 0, 1.0: 0, 5.0: 0}
    for user in users.tolist():
        before = fitted.blend(fitted.data.matrix.profiles([user]))
        first = int(before.argmax())
        open_items = np.isfinite(before)
        near = [item for item in fitted.nearest(first, 30).tolist() if open_items[item]][:5]
        listed[0.0] += len(set(near) & set(np.argsort(-before, kind="stable")[:TOP].tolist()))
        for stars, changes in moved.items():
            profile = fitted.data.matrix.profile(
                user, np.array([first], np.int32), np.array([stars], np.float32)
            )
            after = fitted.blend(profile)
            changes += (after[near] - before[near]).tolist()
            listed[stars] += len(set(near) & fitted.best(profile))
    assert np.mean(moved[1.0]) < 0 < np.mean(moved[5.0])
    assert np.mean(np.array(moved[1.0]) > 0) < 0.2
    assert np.mean(np.array(moved[5.0]) > 0) > 0.8
    assert listed[1.0] <= listed[0.0] <= listed[5.0]
