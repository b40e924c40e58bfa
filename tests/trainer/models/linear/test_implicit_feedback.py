"""How rankers for implicit feedback choose hyperparameters on validation ratings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.ease import EASEConfig
from marquee_core.scorers.hyperparameters import ModelConfig
from marquee_core.scorers.ials import IALSConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from marquee_trainer.models.cf_model import SavableScorer
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.model import Model, Training, score_known
from toy.ratings import release_data

USERS, ITEMS = 90, 40
MakeModel: TypeAlias = Callable[[], ImplicitFeedbackModel[ModelConfig, SavableScorer]]
MAKERS: list[MakeModel] = [
    lambda: EASE(EASEConfig(minimum_stars=3.0)),
    lambda: IALS(IALSConfig(minimum_stars=3.0)),
]
ALL: list[MakeModel] = [*MAKERS, SLIT]


def two_group_data() -> tuple[ReleaseData, Interactions]:
    """Return ratings of two groups: 5 stars for their own items, and 3 stars at random."""
    random = np.random.default_rng(0)
    own = (np.arange(USERS)[:, None] % 2) == (np.arange(ITEMS) % 2)
    stars = np.where(own & (random.random(own.shape) < 0.35), 5.0, 0.0)
    stars[(stars == 0) & (random.random(own.shape) < 0.6)] = 3.0
    held_out = (stars > 0) & (random.random(own.shape) < 0.2)
    users, items = np.nonzero(held_out)
    validation = Interactions(
        users.astype(np.int32), items.astype(np.int32), stars[held_out].astype(np.float32)
    )
    stars[held_out] = 0.0
    times = random.integers(0, 20, np.count_nonzero(stars))
    return release_data(stars, times), validation


@pytest.mark.parametrize("make", MAKERS)
def test_validation_ratings_determine_which_ratings_are_likes(make: MakeModel) -> None:
    """Random ratings no longer count as likes, which improves the ranking."""
    data, validation = two_group_data()
    task = RankingTask.of(data.matrix, validation, 4.0)

    def ndcg(model: Model) -> float:
        return ranking_metrics(task, score_known(model.scorer, data), 10).ndcg

    as_configured, validated = make(), make()
    as_configured.fit(Training(data))
    validated.fit(Training(data, validation))
    assert as_configured.parameters["minimum_stars"] == 3.0
    assert validated.parameters["minimum_stars"] == 4.0
    assert ndcg(validated) > ndcg(as_configured)


@pytest.mark.parametrize("make", ALL)
def test_hyperparameters_are_chosen_one_after_another(make: MakeModel) -> None:
    """No other value of the last hyperparameter gives a better NDCG at `relevant_stars`."""
    data, validation = two_group_data()
    task = RankingTask.of(data.matrix, validation, 3.0)

    def ndcg(model: Model) -> float:
        model.fit(Training(data))
        return ranking_metrics(task, score_known(model.scorer, data), 10).ndcg

    model = make()
    config = model.config
    model.fit(Training(data, validation, relevant_stars=3.0))
    chosen = model.config
    name, multipliers = model.multipliers[-1]
    tried = [
        replace(chosen, **{name: getattr(config, name) * multiplier})
        for multiplier in (1.0, *multipliers)
    ]
    reached = [ndcg(type(model)(other)) for other in tried]
    assert ndcg(type(model)(chosen)) == max(reached)
    assert min(reached) < max(reached)


@pytest.mark.parametrize("make", ALL)
def test_a_refit_keeps_the_chosen_hyperparameters(make: MakeModel) -> None:
    """A refit without validation ratings uses the chosen configuration and gives the same model."""
    data, validation = two_group_data()
    model = make()
    model.fit(Training(data, validation))
    again = model.for_refit()
    again.fit(Training(data))
    assert again.parameters == model.parameters
    profiles = data.matrix.all_profiles()
    np.testing.assert_array_equal(again.scorer.score(profiles), model.scorer.score(profiles))


@pytest.mark.parametrize("make", ALL)
def test_nothing_is_chosen_without_relevant_items(make: MakeModel) -> None:
    """Without a relevant validation item there is no NDCG, so the configuration is kept."""
    data, validation = two_group_data()
    disliked = Interactions(validation.users, validation.items, np.ones_like(validation.ratings))
    model = make()
    before = model.parameters
    model.fit(Training(data, disliked))
    assert model.parameters == before


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    """A configuration with three hyperparameters."""

    first: float = 0.0
    second: float = 0.0
    third: float = 2.0


class ToyScorer:
    """Ranks the relevant item higher the better its configuration is."""

    output = Output.AFFINITY

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Rank the relevant item, the first, by the configuration's distance from the optimum."""
        assert items is None
        config = self.config
        distance = abs(config.first - 1) + abs(config.second - 5) + abs(config.third - 6)
        return np.tile(
            np.array([-distance, *-np.arange(ITEMS - 1)], np.float32), (len(profiles), 1)
        )

    def save(self, folder: Path) -> None:
        """Save nothing."""


class Toy(ImplicitFeedbackModel[ToyConfig, ToyScorer]):
    """Records the configurations that are tried."""

    name = "toy"
    config_type = ToyConfig
    alternatives = (
        ({"first": 1.0, "second": 5.0}, {"first": 1.0, "second": 7.0}),
        ({"second": 5.0},),
    )
    multipliers = (("third", (0.5, 3.0, 5.0)),)
    tried: ClassVar[list[ToyConfig]] = []

    def learn(self, data: ReleaseData) -> ToyScorer:
        """Record the configuration."""
        del data
        self.tried.append(self._config)
        return ToyScorer(self._config)


def test_groups_are_tried_in_order_from_the_best_so_far() -> None:
    """A setting changes all its values together, and multipliers apply to the configured value."""
    one = np.zeros(1, np.int32)
    data = release_data(np.zeros((1, ITEMS)))
    Toy.tried.clear()
    model = Toy()
    model.fit(Training(data, Interactions(one, one, np.full(1, 5, np.float32))))
    assert Toy.tried == [
        ToyConfig(),
        ToyConfig(1.0, 5.0),
        ToyConfig(1.0, 7.0),
        # The next group has only the best setting so far; 3 · 2 is the optimum of the last.
        ToyConfig(1.0, 5.0, 1.0),
        ToyConfig(1.0, 5.0, 6.0),
        ToyConfig(1.0, 5.0, 10.0),
    ]
    assert model.scorer.config == ToyConfig(1.0, 5.0, 6.0)
    assert model.parameters == {"first": 1.0, "second": 5.0, "third": 6.0}
    assert model.validated_hyperparameters() == ("first", "second", "third")
