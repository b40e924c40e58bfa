"""What every model of the CF service promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import RatingsMatrix, join_profiles
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_core.scorers.scorer import ExplainsByItems, ExplainsByNeighbours, ReleaseData
from marquee_services.cf.models import CF_SCORERS
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.linear.slit import SLIT
from marquee_trainer.models.model import Model, Training
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF

USERS, ITEMS = 50, 35
MODELS: list[type[Model]] = [UserCF, ItemCF, EASE, SLIT, BayesianMF, IALS]
QUICK = BayesianMFConfig(rank=3, sweeps=30, burn_in=10, samples=10)
# Products of matrices, which round one way for a row and another for many.
PRODUCT_ERROR = {"bayesian_mf": 1e-5, "ials": 1e-5}


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Ratings by two latent tastes; the last user and the last item have none."""
    rng = np.random.default_rng(1)
    tastes = rng.normal(size=(USERS, 2)) @ rng.normal(size=(2, ITEMS))
    stars = np.clip(np.round(3 + tastes), 1, 5)
    rated = rng.random((USERS, ITEMS)) < 0.3
    rated[-1] = rated[:, -1] = False
    users, items = np.nonzero(rated)
    matrix = RatingsMatrix.of(
        users.astype(np.int32),
        items.astype(np.int32),
        stars[users, items].astype(np.float32),
        USERS,
        ITEMS,
        rng.integers(0, 9, len(users)),
    )
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 3))


@pytest.fixture(params=MODELS, ids=lambda kind: str(kind.name))
def model(request: pytest.FixtureRequest, data: ReleaseData) -> Model:
    """Each model, fitted."""
    made: Model = BayesianMF(QUICK) if request.param is BayesianMF else request.param()
    made.fit(Training(data))
    return made


def test_the_service_knows_every_model() -> None:
    """What the trainer names, the CF service can load."""
    assert list(CF_SCORERS) == [kind.name for kind in MODELS]
    assert {kind.backend for kind in MODELS} == {"cf"}


def test_a_model_is_not_used_before_it_is_fitted() -> None:
    """Scoring with nothing learned says so."""
    for kind in MODELS:
        with pytest.raises(RuntimeError, match="not fitted"):
            _ = kind().scorer


def test_scores_are_finite_and_of_the_promised_shape(model: Model, data: ReleaseData) -> None:
    """All users, with ratings and without, get float32 numbers for all items."""
    scores = model.scorer.score(data.matrix.profiles(range(USERS)))
    assert scores.shape == (USERS, ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_without_ratings_the_answer_is_the_baseline_or_zero(
    model: Model, data: ReleaseData
) -> None:
    """A visitor and a known user without ratings get μ + b_i, or no affinity.

    To the last bit the baseline's, but from a model that learns biases of its own.
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


def test_some_items_get_the_scores_they_have_among_all(model: Model, data: ReleaseData) -> None:
    """Naming items picks columns, in the order asked for."""
    profiles = data.matrix.profiles([4, 9])
    items = np.array([20, 3, 34], np.int32)
    whole = model.scorer.score(profiles)
    error = PRODUCT_ERROR.get(model.name, 0)
    scores = model.scorer.score(profiles, items)
    np.testing.assert_allclose(scores, whole[:, items], rtol=0, atol=error)


def test_a_batch_scores_as_its_users_alone(model: Model, data: ReleaseData) -> None:
    """Known users, a user with fresh ratings and visitors do not disturb each other."""
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


def test_scores_do_not_touch_what_they_are_made_of(model: Model, data: ReleaseData) -> None:
    """Scoring twice gives the same answer, and leaves the ratings as they are."""
    before = data.matrix.ratings.copy()
    profiles = data.matrix.profiles(range(USERS))
    first = model.scorer.score(profiles).copy()
    np.testing.assert_array_equal(model.scorer.score(profiles), first)
    np.testing.assert_array_equal(data.matrix.ratings, before)


def test_similarities_are_those_of_one_item_to_all(model: Model) -> None:
    """Where a model represents items, rows lie in -1 to 1 and hold 1 at the item itself."""
    for item in (0, 17, ITEMS - 1):
        row = model.scorer.similarities(item)
        assert (row is None) == (model.name in ("user_cf", "slit"))
        if row is not None:
            assert row.shape == (ITEMS,)
            assert row.dtype == np.float32
            assert np.abs(row).max() <= 1.0
            assert row[item] == 1.0


def test_a_saved_model_scores_the_same(model: Model, data: ReleaseData, tmp_path: Path) -> None:
    """The trainer and the service load what was saved, to the last bit."""
    model.save(tmp_path)
    again = type(model).load(tmp_path, data)
    served = CF_SCORERS[model.name](tmp_path, data)
    profiles = join_profiles(
        [
            data.matrix.profiles(range(USERS)),
            data.matrix.profile(-1, np.array([1, 7], np.int32), np.array([5, 2], np.float32)),
        ]
    )
    wanted = model.scorer.score(profiles)
    np.testing.assert_array_equal(again.scorer.score(profiles), wanted)
    np.testing.assert_array_equal(served.score(profiles), wanted)
    assert again.parameters == model.parameters
    assert served.output is model.scorer.output


def test_fitting_again_gives_the_same_model(model: Model, data: ReleaseData) -> None:
    """Only sampling is random; a refit for the release keeps the configuration."""
    again = model.with_epochs(0)
    again.fit(Training(data, seed=0 if model.name == "bayesian_mf" else 99))
    profiles = data.matrix.profiles(range(USERS))
    np.testing.assert_array_equal(again.scorer.score(profiles), model.scorer.score(profiles))
    assert again.parameters == model.parameters


def test_parameters_can_be_recorded(model: Model) -> None:
    """The manifest holds them as JSON numbers."""
    recorded = json.loads(json.dumps(model.parameters))
    assert recorded == model.parameters
    assert all(isinstance(value, (int, float)) for value in recorded.values())


@pytest.mark.parametrize("text", ["", "[]", '{"no_such": 1}', '{"neighbours": "many"}'])
def test_a_damaged_configuration_is_refused(
    model: Model, data: ReleaseData, tmp_path: Path, text: str
) -> None:
    """A configuration that cannot be read stops the load."""
    model.save(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        CF_SCORERS[model.name](tmp_path, data)


def test_a_missing_or_cut_file_is_refused(model: Model, data: ReleaseData, tmp_path: Path) -> None:
    """Each file is needed whole."""
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
    model: Model, data: ReleaseData, tmp_path: Path
) -> None:
    """A model of more users and items than the release has is not served."""
    model.save(tmp_path)
    matrix = RatingsMatrix.of(
        np.array([0], np.int32), np.array([0], np.int32), np.array([4], np.float32), 1, 1
    )
    other = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))
    with pytest.raises(ArtifactError):
        CF_SCORERS[model.name](tmp_path, other)


def test_evidence_comes_from_the_neighbourhood_models(model: Model) -> None:
    """Item-based filtering explains by rated items, user-based by users, others not in stars."""
    explains = (
        isinstance(model.scorer, ExplainsByItems),
        isinstance(model.scorer, ExplainsByNeighbours),
    )
    assert explains == (model.name == "item_cf", model.name == "user_cf")
