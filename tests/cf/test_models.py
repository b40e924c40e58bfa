"""Conformance tests for every model of the CF service."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import join_profiles
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.config import load_config
from marquee_core.scorers.hyperparameters import ModelConfig
from marquee_core.scorers.scorer import (
    ComparesItems,
    ExplainsByItems,
    ExplainsByNeighbours,
    ReleaseData,
)
from marquee_services.cf.models import CF_SCORERS
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.cf_model import CFModel, SavableScorer
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.model import Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from toy.ratings import release_data

FittedModel: TypeAlias = CFModel[ModelConfig, SavableScorer]

USERS, ITEMS = 50, 35
MODELS: list[type[FittedModel]] = [UserCF, ItemCF, EASE, SLIT, BayesianMF, IALS]
QUICK = BayesianMFConfig(factors=3, sweeps=30, burn_in=10, samples=10)
# Matrix products round differently for one row than for many.
PRODUCT_ERROR = {"bayesian_mf": 1e-5, "ials": 1e-5}
# The neighbours of a few items are summed in a different order than those of all items.
SUM_ERROR = {"user_cf": 1e-6, "item_cf": 1e-6}


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Ratings from two latent factors; the last user and the last item have no ratings."""
    rng = np.random.default_rng(1)
    tastes = rng.normal(size=(USERS, 2)) @ rng.normal(size=(2, ITEMS))
    stars = np.clip(np.round(3 + tastes), 1, 5)
    rated = rng.random((USERS, ITEMS)) < 0.3
    rated[-1] = rated[:, -1] = False
    times = rng.integers(0, 9, np.count_nonzero(rated))
    return release_data(np.where(rated, stars, 0), times)


@pytest.fixture(params=MODELS, ids=lambda kind: str(kind.name))
def model(request: pytest.FixtureRequest, data: ReleaseData) -> FittedModel:
    """Each model, fitted."""
    fitted: FittedModel
    fitted = BayesianMF(QUICK) if request.param is BayesianMF else request.param()
    fitted.fit(Training(data))
    return fitted


def test_the_service_has_a_loader_for_every_model() -> None:
    """The CF service can load each model of the trainer by its name."""
    assert list(CF_SCORERS) == [kind.name for kind in MODELS]
    assert {kind.backend for kind in MODELS} == {"cf"}


def test_an_unfitted_model_has_no_scorer() -> None:
    """The error says that the model has not been fitted."""
    for kind in MODELS:
        with pytest.raises(RuntimeError, match="not fitted"):
            _ = kind().scorer


def test_scores_are_finite_and_have_the_documented_shape(
    model: FittedModel, data: ReleaseData
) -> None:
    """All users, with and without ratings, get finite float32 scores for all items."""
    scores = model.scorer.score(data.matrix.profiles(range(USERS)))
    assert scores.shape == (USERS, ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_without_ratings_scores_are_the_baseline_or_zero(
    model: FittedModel, data: ReleaseData
) -> None:
    """A visitor and a known user without ratings get μ + b_i, or 0 from a ranker.

    The scores equal those of the baseline to the last bit, except for a model with its own biases.
    """
    nothing = np.empty(0, np.int32), np.empty(0, np.float32)
    profiles = join_profiles([data.matrix.profile(-1, *nothing), data.matrix.profiles([USERS - 1])])
    neutral = data.baseline.item_bias + np.float32(data.baseline.mean)
    if model.scorer.output is Output.AFFINITY:
        neutral = np.zeros(ITEMS, np.float32)
    scores = model.scorer.score(profiles)
    np.testing.assert_array_equal(scores[0], scores[1])
    mean_gap = 0.25 if model.name == "bayesian_mf" else 0.0
    assert np.abs(scores[0] - neutral).mean() <= mean_gap


def test_scoring_a_few_items_equals_scoring_all(model: FittedModel, data: ReleaseData) -> None:
    """Scoring given items selects their columns, in the given order."""
    profiles = data.matrix.profiles([4, 9])
    items = np.array([20, 3, 34], np.int32)
    whole = model.scorer.score(profiles)
    error = PRODUCT_ERROR.get(model.name, SUM_ERROR.get(model.name, 0))
    scores = model.scorer.score(profiles, items)
    np.testing.assert_allclose(scores, whole[:, items], rtol=0, atol=error)


def test_a_batch_has_the_scores_of_its_single_users(model: FittedModel, data: ReleaseData) -> None:
    """Known users, a known user with fresh ratings, and visitors can share a batch."""
    fresh = np.array([2, 30], np.int32), np.array([5, 1], np.float32)
    parts = [
        data.matrix.profiles([8]),
        data.matrix.profile(-1, *fresh),
        data.matrix.profile(8, *fresh),
        data.matrix.profiles([USERS - 1]),
    ]
    batch = model.scorer.score(join_profiles(parts))
    for row, part in zip(batch, parts, strict=True):
        error = PRODUCT_ERROR.get(model.name, 0)
        np.testing.assert_allclose(row, model.scorer.score(part)[0], rtol=0, atol=error)


def test_scoring_does_not_modify_its_input(model: FittedModel, data: ReleaseData) -> None:
    """Scoring twice gives the same scores and does not change the ratings."""
    before = data.matrix.ratings.copy()
    profiles = data.matrix.profiles(range(USERS))
    first = model.scorer.score(profiles).copy()
    np.testing.assert_array_equal(model.scorer.score(profiles), first)
    np.testing.assert_array_equal(data.matrix.ratings, before)


def test_item_similarities_are_within_minus_one_and_one(model: FittedModel) -> None:
    """If a model has item similarities, they are in [-1, 1], and 1 for the item itself."""
    scorer = model.scorer
    assert isinstance(scorer, ComparesItems) == (model.name not in ("user_cf", "slit"))
    if not isinstance(scorer, ComparesItems):
        return
    for item in (0, 17, ITEMS - 1):
        row = scorer.similarities(item)
        assert row.shape == (ITEMS,)
        assert row.dtype == np.float32
        assert np.abs(row).max() <= 1.0
        assert row[item] == 1.0


def test_a_saved_model_scores_the_same(
    model: FittedModel, data: ReleaseData, tmp_path: Path
) -> None:
    """The service loads a scorer with the same configuration and bit-identical scores."""
    model.save(tmp_path)
    served = CF_SCORERS[model.name](tmp_path, data)
    profiles = join_profiles(
        [
            data.matrix.profiles(range(USERS)),
            data.matrix.profile(-1, np.array([1, 7], np.int32), np.array([5, 2], np.float32)),
        ]
    )
    np.testing.assert_array_equal(served.score(profiles), model.scorer.score(profiles))
    assert asdict(load_config(tmp_path, model.config_type)) == model.parameters
    assert served.output is model.scorer.output


@pytest.mark.parametrize("kind", [UserCF, BayesianMF])
def test_a_model_may_be_saved_without_its_known_users(
    kind: type[FittedModel], data: ReleaseData, tmp_path: Path
) -> None:
    """Known users are then folded in on request, with the same scores and much smaller files."""
    kept: FittedModel = BayesianMF(QUICK) if kind is BayesianMF else kind()
    kept.fit(Training(data))
    folding = kept.without_users()
    sizes = []
    for model, folder in ((kept, tmp_path / "kept"), (folding, tmp_path / "folding")):
        model.save(folder)
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert sizes[1] < sizes[0]
    served = CF_SCORERS[kind.name](tmp_path / "folding", data)
    profiles = data.matrix.profiles(range(USERS))
    few = np.array([3, 1, 20], np.int32)
    for items in (None, few):
        expected = kept.scorer.score(profiles, items)
        np.testing.assert_allclose(served.score(profiles, items), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(served.score(profiles), folding.scorer.score(profiles))


def test_other_models_store_nothing_for_known_users(model: FittedModel) -> None:
    """A model without stored users is unchanged when they are dropped."""
    if model.name not in ("user_cf", "bayesian_mf"):
        assert model.without_users() is model


def test_fitting_again_gives_the_same_model(model: FittedModel, data: ReleaseData) -> None:
    """A refit keeps the configuration, and only sampling depends on the seed."""
    again = model.for_refit()
    again.start = {}  # Bayesian MF would continue the chain.
    again.fit(Training(data, seed=0 if model.name == "bayesian_mf" else 99))
    profiles = data.matrix.profiles(range(USERS))
    np.testing.assert_array_equal(again.scorer.score(profiles), model.scorer.score(profiles))
    assert again.parameters == model.parameters


def test_parameters_can_be_recorded(model: FittedModel) -> None:
    """The parameters are numbers and can be written as JSON."""
    recorded = json.loads(json.dumps(model.parameters))
    assert recorded == model.parameters
    assert all(isinstance(value, (int, float)) for value in recorded.values())


@pytest.mark.parametrize("text", ["", "[]", '{"no_such": 1}', '{"neighbours": "many"}'])
def test_a_damaged_configuration_is_refused(
    model: FittedModel, data: ReleaseData, tmp_path: Path, text: str
) -> None:
    """A scorer is not loaded if its configuration cannot be read."""
    model.save(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        CF_SCORERS[model.name](tmp_path, data)


def test_a_missing_or_truncated_file_is_refused(
    model: FittedModel, data: ReleaseData, tmp_path: Path
) -> None:
    """A scorer is not loaded if any of its files is missing or truncated."""
    model.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(ArtifactError):
            CF_SCORERS[model.name](tmp_path, data)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ArtifactError):
            CF_SCORERS[model.name](tmp_path, data)
        path.write_bytes(content)
    CF_SCORERS[model.name](tmp_path, data)


def test_artifacts_of_other_data_are_refused(
    model: FittedModel, data: ReleaseData, tmp_path: Path
) -> None:
    """A scorer is not loaded if it has more users or items than the release."""
    model.save(tmp_path)
    other = release_data(np.array([[4.0]]), sweeps=1)
    with pytest.raises(ArtifactError):
        CF_SCORERS[model.name](tmp_path, other)


def test_every_model_explains_by_items_or_by_users(model: FittedModel) -> None:
    """User-based filtering explains by similar users, and all other models by rated items."""
    explains = (
        isinstance(model.scorer, ExplainsByItems),
        isinstance(model.scorer, ExplainsByNeighbours),
    )
    assert explains == (model.name != "user_cf", model.name == "user_cf")


EXPLAINED = {
    "a known user": lambda data: data.matrix.profiles([8]),
    "a known user with fresh ratings": lambda data: data.matrix.profile(
        8, np.array([2, 30], np.int32), np.array([5, 1], np.float32)
    ),
    "a visitor": lambda data: data.matrix.profile(
        -1, np.array([2, 30, 7], np.int32), np.array([5, 1, 3], np.float32)
    ),
    "a visitor who dislikes everything": lambda data: data.matrix.profile(
        -1, np.array([2, 30], np.int32), np.array([1, 2], np.float32)
    ),
    "a visitor without ratings": lambda data: data.matrix.profile(
        -1, np.empty(0, np.int32), np.empty(0, np.float32)
    ),
}


@pytest.mark.parametrize("who", EXPLAINED)
def test_contributions_of_rated_items_add_up_to_the_score(
    model: FittedModel, data: ReleaseData, who: str
) -> None:
    """For every item, the contributions of all rated items and the remainder sum to the score."""
    if not isinstance(model.scorer, ExplainsByItems):
        assert model.name == "user_cf"
        return
    profile = EXPLAINED[who](data)
    items = np.arange(ITEMS, dtype=np.int32)
    evidence = model.scorer.rated_evidence(profile, items, ITEMS)
    scores = model.scorer.score(profile)[0]
    for item, one in enumerate(evidence):
        assert set(one.items.tolist()) <= set(profile.items.tolist())
        assert one.contributions.sum() == pytest.approx(one.total, abs=1e-5)
        assert one.total + one.remainder == pytest.approx(scores[item], abs=2e-5)
        assert (np.diff(np.abs(one.contributions)) <= 0).all()
        assert (np.abs(one.similarities) <= 1).all()
    assert bool(sum(abs(one.total) for one in evidence)) == bool(len(profile.items))
