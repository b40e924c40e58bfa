"""Conformance tests for every registered model, from its configuration to its service."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from marquee_core.output import Output
from marquee_core.ratings import join_profiles
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.hyperparameters import (
    ModelConfig,
    hyperparameters,
    searched_hyperparameters,
)
from marquee_core.scorers.scorer import ComparesItems, ReleaseData, score_pairs
from marquee_services.cf.models import CF_SCORERS
from marquee_services.inference.models import INFERENCE_SCORERS
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.models.configurations import with_parameters
from marquee_trainer.models.model import ConfiguredModel, Training
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel
from marquee_trainer.models.registry import MODELS, MODELS_BY_NAME
from toy.ratings import release_data

RegisteredModel = ConfiguredModel[ModelConfig]

USERS, ITEMS = 40, 30
SCORERS = {"cf": CF_SCORERS, "inference": INFERENCE_SCORERS}
# TensorFlow's rounding errors depend on the shape of a batch.
ERROR = {"cf": 1e-5, "inference": 2e-3}


@pytest.fixture(scope="module")
def parts() -> tuple[ReleaseData, Interactions]:
    """Training and validation ratings from two latent factors; the last user has no ratings."""
    rng = np.random.default_rng(2)
    factors = rng.normal(size=(USERS, 2)) @ rng.normal(size=(2, ITEMS))
    stars = np.clip(np.round(3 + factors), 1, 5)
    part = rng.random(stars.shape)
    part[-1] = 1.0
    train = part < 0.35
    users, items = np.nonzero((part > 0.9) & (part < 1.0))
    validation = Interactions(
        users.astype(np.int32), items.astype(np.int32), stars[users, items].astype(np.float32)
    )
    times = rng.permutation(np.count_nonzero(train))
    return release_data(np.where(train, stars, 0), times), validation


def small(model_class: type[RegisteredModel]) -> RegisteredModel:
    """Return an unfitted model that is fast to fit."""
    if model_class.config_type is BayesianMFConfig:
        return model_class(BayesianMFConfig(factors=2, sweeps=12, burn_in=4, samples=6))
    model = model_class()
    return model.with_epochs(1) if isinstance(model, TensorFlowModel) else model


@pytest.fixture(scope="module", params=MODELS, ids=lambda model_class: model_class.name)
def model(
    request: pytest.FixtureRequest, parts: tuple[ReleaseData, Interactions]
) -> RegisteredModel:
    """Each model, fitted with validation ratings."""
    fitted = small(request.param)
    fitted.fit(Training(*parts))
    return fitted


def test_every_model_can_be_loaded_by_a_service() -> None:
    """The services load exactly the registered models."""
    for backend, scorers in SCORERS.items():
        assert list(scorers) == [kind.name for kind in MODELS if kind.backend == backend]
    assert len(MODELS_BY_NAME) == len(MODELS)


@pytest.mark.parametrize("model_class", MODELS, ids=lambda model_class: model_class.name)
def test_every_field_of_a_configuration_is_documented(model_class: type[RegisteredModel]) -> None:
    """The docstrings of a configuration and its base classes describe each field."""
    config_type = model_class.config_type
    config = config_type()
    values = [getattr(config, field.name) for field in fields(config)]
    for part in (config, *(value for value in values if isinstance(value, ModelConfig))):
        documented = "\n".join(base.__doc__ or "" for base in type(part).__mro__)
        for field in fields(part):
            assert f"  {field.name}: " in documented


@pytest.mark.parametrize("model_class", MODELS, ids=lambda model_class: model_class.name)
def test_search_spaces_are_within_the_ranges(model_class: type[RegisteredModel]) -> None:
    """Both ends of a search space are in the range of the hyperparameter."""
    config_type = model_class.config_type
    for name, declared in searched_hyperparameters(config_type).items():
        assert declared.search is not None
        assert declared.search.low < declared.search.high
        for end in (declared.search.low, declared.search.high):
            declared.check(name, end)
            with_parameters(config_type(), {name: end})
    assert hyperparameters(config_type)


def test_an_unfitted_model_has_no_scorer(model: RegisteredModel, tmp_path: Path) -> None:
    """The error says that the model has not been fitted, and the model cannot be saved either."""
    unfitted = type(model)()
    with pytest.raises(RuntimeError, match="not fitted"):
        _ = unfitted.scorer
    with pytest.raises(RuntimeError, match="not fitted"):
        unfitted.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_model_and_its_scorer_agree_on_the_meaning_of_scores(model: RegisteredModel) -> None:
    """A model declares whether it is a ranker before it is fitted, as its data may not suit it."""
    assert type(model).output is model.scorer.output


def test_scores_of_known_users_are_finite(
    model: RegisteredModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """All known users, with and without ratings, get finite float32 scores for all items."""
    scores = model.scorer.score(parts[0].matrix.all_profiles())
    assert scores.shape == (USERS, ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_a_visitor_with_a_users_ratings_gets_the_users_scores(
    model: RegisteredModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """Folding in the same ratings in the same order gives the scores of the known user."""
    matrix = parts[0].matrix
    for user in range(0, USERS - 1, 9):
        known = matrix.profiles([user])
        # Oldest first, because a visitor's ratings count as given one after another.
        order = np.argsort(-known.later_counts, kind="stable")
        visitor = matrix.profile(-1, known.items[order], known.ratings[order])
        np.testing.assert_allclose(
            model.scorer.score(visitor), model.scorer.score(known), atol=ERROR[model.backend]
        )


def test_without_ratings_a_visitor_and_a_known_user_get_the_same_scores(
    model: RegisteredModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """A rating predictor gives about μ + b_i, and a ranker gives 0."""
    data = parts[0]
    visitor = data.matrix.profile(-1, np.empty(0, np.int32), np.empty(0, np.float32))
    both = join_profiles([visitor, data.matrix.profiles([USERS - 1])])
    scores = model.scorer.score(both)
    np.testing.assert_array_equal(scores[0], scores[1])
    if model.scorer.output is Output.AFFINITY:
        assert not scores.any()
    else:
        assert np.abs(scores[0] - data.baseline.score(visitor)[0]).mean() < 0.5


def test_scoring_a_few_items_equals_scoring_all(
    model: RegisteredModel, parts: tuple[ReleaseData, Interactions]
) -> None:
    """Items may be the same or different for each user, and users one or many."""
    matrix = parts[0].matrix
    visitors = [
        matrix.profile(-1, known.items[::2], known.ratings[::2])
        for known in (matrix.profiles([user]) for user in range(0, USERS, 3))
    ]
    profiles = join_profiles([*visitors, matrix.profiles(np.arange(5, dtype=np.int32))])
    random = np.random.default_rng(0)
    own = random.integers(0, ITEMS, (len(profiles), 7)).astype(np.int32)
    whole = model.scorer.score(profiles)
    error = ERROR[model.backend]
    np.testing.assert_allclose(
        score_pairs(model.scorer, profiles, own), np.take_along_axis(whole, own, 1), atol=error
    )
    np.testing.assert_allclose(model.scorer.score(profiles, own[0]), whole[:, own[0]], atol=error)
    for place, visitor in enumerate(visitors[:3]):
        np.testing.assert_allclose(model.scorer.score(visitor)[0], whole[place], atol=error)


def test_the_service_has_the_scores_of_the_trainer(
    model: RegisteredModel, parts: tuple[ReleaseData, Interactions], tmp_path: Path
) -> None:
    """A saved model that is loaded by its service gives the same scores and similarities."""
    data = parts[0]
    model.save(tmp_path / "saved")
    served = SCORERS[model.backend][model.name](tmp_path / "saved", data)
    profiles = join_profiles(
        [
            data.matrix.all_profiles(),
            data.matrix.profile(-1, np.array([1, 7], np.int32), np.array([5, 2], np.float32)),
        ]
    )
    expected = model.scorer.score(profiles)
    np.testing.assert_allclose(served.score(profiles), expected, atol=1e-5)
    assert served.output is model.scorer.output
    assert isinstance(served, ComparesItems) == isinstance(model.scorer, ComparesItems)
    if isinstance(served, ComparesItems) and isinstance(model.scorer, ComparesItems):
        expected = model.scorer.similarities(3)
        np.testing.assert_allclose(served.similarities(3), expected, atol=1e-5)


def test_a_refit_keeps_the_configuration(model: RegisteredModel) -> None:
    """The model for the refit is unfitted, and has the configuration that the fit chose."""
    again = model.for_refit()
    assert type(again) is type(model)
    assert again.parameters == model.parameters
    with pytest.raises(RuntimeError, match="not fitted"):
        _ = again.scorer


def test_parameters_can_be_recorded(model: RegisteredModel) -> None:
    """The manifest contains the parameters as JSON."""
    recorded = json.loads(json.dumps(model.parameters))
    assert list(recorded) == list(model.parameters)


def test_a_scorer_is_freed_with_its_last_reference(
    model: RegisteredModel, parts: tuple[ReleaseData, Interactions], tmp_path: Path
) -> None:
    """It takes part in no reference cycle, so its memory does not wait for a garbage collection."""
    data, _ = parts
    model.save(tmp_path / "saved")
    gc.disable()
    try:
        scorer = SCORERS[model.backend][model.name](tmp_path / "saved", data)
        scorer.score(data.matrix.profiles([0]))
        freed = weakref.ref(scorer)
        del scorer
        assert freed() is None
    finally:
        gc.enable()
