"""How models of likes choose their configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.ease import EASEConfig
from marquee_core.scorers.ials import IALSConfig
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.metrics.ranking_metrics import RankingTask, ranking_metrics
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.linear.implicit_feedback import ImplicitFeedbackModel
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.model import Model, Training, score_known

USERS, ITEMS = 90, 40
MAKERS: list[Callable[[], Model]] = [
    lambda: EASE(EASEConfig(minimum_stars=3.0)),
    lambda: IALS(IALSConfig(minimum_stars=3.0)),
]
ALL: list[Callable[[], Model]] = [*MAKERS, SLIT]


def made_up() -> tuple[ReleaseData, Interactions]:
    """Two groups that give their own items 5 stars; the 3 stars that all give tell nothing."""
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
    users, items = np.nonzero(stars)
    matrix = RatingsMatrix.of(
        users.astype(np.int32),
        items.astype(np.int32),
        stars[users, items].astype(np.float32),
        USERS,
        ITEMS,
        random.integers(0, 20, len(users)),
    )
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 3)), validation


@pytest.mark.parametrize("make", MAKERS)
def test_validation_ratings_choose_what_counts_as_liking(make: Callable[[], Model]) -> None:
    """Stars that tell nothing are left out, and the lists become better than as configured."""
    data, validation = made_up()
    task = RankingTask.of(data.matrix, validation, 4.0)

    def ndcg(model: Model) -> float:
        return ranking_metrics(task, score_known(model.scorer, data), 10).ndcg

    as_it_is, chosen = make(), make()
    as_it_is.fit(Training(data))
    chosen.fit(Training(data, validation))
    assert as_it_is.parameters["minimum_stars"] == 3.0
    assert chosen.parameters["minimum_stars"] == 4.0
    assert ndcg(chosen) > ndcg(as_it_is)


@pytest.mark.parametrize("make", ALL)
def test_the_best_of_each_parameter_in_turn_is_taken(make: Callable[[], Model]) -> None:
    """No single step from what was chosen is better, to users of the stars that are relevant."""
    data, validation = made_up()
    task = RankingTask.of(data.matrix, validation, 3.0)

    def ndcg(model: Model) -> float:
        model.fit(Training(data))
        return ranking_metrics(task, score_known(model.scorer, data), 10).ndcg

    model = make()
    assert isinstance(model, ImplicitFeedbackModel)
    config = model._config
    model.fit(Training(data, validation, relevant_stars=3.0))
    chosen = model._config
    name, multiples = model.multiples[-1]
    tried = [
        replace(chosen, **{name: getattr(config, name) * multiple})
        for multiple in (1.0, *multiples)
    ]
    kind: Any = type(model)
    reached = [ndcg(kind(other)) for other in tried]
    assert ndcg(kind(chosen)) == max(reached)
    assert min(reached) < max(reached)


@pytest.mark.parametrize("make", ALL)
def test_a_refit_keeps_what_was_chosen(make: Callable[[], Model]) -> None:
    """Fitted again without validation ratings, the chosen configuration gives the same model."""
    data, validation = made_up()
    model = make()
    again = model.with_epochs(model.fit(Training(data, validation)).epochs)
    again.fit(Training(data))
    assert again.parameters == model.parameters
    profiles = data.matrix.all_profiles()
    np.testing.assert_array_equal(again.scorer.score(profiles), model.scorer.score(profiles))


@pytest.mark.parametrize("make", ALL)
def test_nothing_is_chosen_where_nothing_is_relevant(make: Callable[[], Model]) -> None:
    """Without a liked validation item there is no NDCG to compare."""
    data, validation = made_up()
    disliked = Interactions(validation.users, validation.items, np.ones_like(validation.ratings))
    model = make()
    before = model.parameters
    model.fit(Training(data, disliked))
    assert model.parameters == before


@dataclass(frozen=True)
class ToyConfig:
    """Three parameters."""

    first: float = 0.0
    second: float = 0.0
    third: float = 2.0


class ToyScorer:
    """Ranks an item high among all by how good its configuration is."""

    output = Output.AFFINITY

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """The first item is the relevant one, and is beaten by as many as the goal is away."""
        assert items is None
        config = self.config
        away = abs(config.first - 1) + abs(config.second - 5) + abs(config.third - 6)
        return np.tile(np.array([-away, *-np.arange(ITEMS - 1)], np.float32), (len(profiles), 1))

    def similarities(self, item: int) -> Float32 | None:
        """None."""
        del item
        return None

    def save(self, folder: Path) -> None:
        """Nothing."""

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> ToyScorer:
        """Never called."""
        raise NotImplementedError


class Toy(ImplicitFeedbackModel[ToyConfig, ToyScorer]):
    """Notes what is tried."""

    name = "toy"
    config_type = ToyConfig
    scorer_type = ToyScorer
    values = (({"first": 1.0, "second": 5.0}, {"first": 1.0, "second": 7.0}), ({"second": 5.0},))
    multiples = (("third", (0.5, 3.0, 5.0)),)
    tried: ClassVar[list[ToyConfig]] = []

    def learn(self, data: ReleaseData) -> ToyScorer:
        """Learns nothing."""
        del data
        self.tried.append(self._config)
        return ToyScorer(self._config)


def test_groups_are_tried_in_turn_each_from_the_best_so_far() -> None:
    """All values of a group are changed at once, multiples are of the configured value."""
    one = np.zeros(1, np.int32)
    nobody = np.empty(0, np.int32)
    matrix = RatingsMatrix.of(nobody, nobody, np.empty(0, np.float32), 1, ITEMS)
    data = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))
    Toy.tried.clear()
    model = Toy()
    model.fit(Training(data, Interactions(one, one, np.full(1, 5, np.float32))))
    assert Toy.tried == [
        ToyConfig(),
        ToyConfig(1.0, 5.0),
        ToyConfig(1.0, 7.0),
        # The next group holds what is the best already; of the last, 3 times 2 is the goal.
        ToyConfig(1.0, 5.0, 1.0),
        ToyConfig(1.0, 5.0, 6.0),
        ToyConfig(1.0, 5.0, 10.0),
    ]
    assert model.scorer.config == ToyConfig(1.0, 5.0, 6.0)
    assert model.parameters == {"first": 1.0, "second": 5.0, "third": 6.0}
    assert model.chosen() == ("first", "second", "third")
