"""Refits that continue the first fit: what they start from, and that they repeat exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from marquee_core.ratings import RatingsMatrix
from marquee_core.scorers.bayesian_mf import BayesianMFConfig
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.bayesian.bayesian_mf import BayesianMF
from marquee_trainer.models.model import ConfiguredModel, Training, predict_pairs
from marquee_trainer.models.neural.autorec import AutoRec, ItemAutoRecConfig
from marquee_trainer.models.neural.deep_mf import DeepMF
from marquee_trainer.models.neural.leave_one_out_model import _RestOfDecay
from marquee_trainer.models.neural.leave_one_out_network import LeaveOneOutConfig
from marquee_trainer.models.neural.mf import MF, MFConfig
from marquee_trainer.training.checkpoints import Checkpoints
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.plan import FINAL_FIT, FIT, REFIT, TrainingPlan

EPOCHS = 4
# Residual MF is fitted by the same code as deep MF.
MODELS: dict[str, ConfiguredModel[Any]] = {
    "deep_mf": DeepMF(LeaveOneOutConfig(epochs=EPOCHS, factors=5, set_factors=3, cells=512)),
    "bayesian_mf": BayesianMF(BayesianMFConfig(factors=3, sweeps=30, burn_in=10, samples=10)),
}


@pytest.fixture(scope="module")
def plan(small_dataset: RatingsDataset, small_split: Split) -> TrainingPlan:
    """The plan of a run on the sample."""
    return TrainingPlan(small_dataset, small_split, TrainingConfig())


@pytest.fixture(scope="module", params=MODELS)
def fitted(request: pytest.FixtureRequest, plan: TrainingPlan) -> ConfiguredModel[Any]:
    """A model after the first fit."""
    model = MODELS[request.param].for_refit()
    model.fit(plan.training)
    return model


def refit_of(model: ConfiguredModel[Any], plan: TrainingPlan) -> ConfiguredModel[Any]:
    """Refit a model on the whole training part."""
    again = model.for_refit()
    again.fit(Training(plan.refit_data))
    return again


def test_a_refit_is_shorter_and_learns_the_new_ratings(
    fitted: ConfiguredModel[Any], plan: TrainingPlan
) -> None:
    """It predicts the validation ratings, on which it is fitted too, better than the first fit."""
    refit = fitted.for_refit()
    assert refit.max_epochs < fitted.max_epochs
    assert len(refit.fit(Training(plan.refit_data)).curve) == refit.max_epochs

    def error(model: ConfiguredModel[Any], data: Any) -> float:
        pairs = plan.validation
        predicted = predict_pairs(model.scorer, data, pairs.users, pairs.items)
        return float(np.mean((predicted - pairs.ratings) ** 2))

    assert error(refit, plan.refit_data) < error(fitted, plan.training.data)
    assert refit.parameters["factors"] == fitted.parameters["factors"]


def test_both_refits_start_from_the_first_fit(
    fitted: ConfiguredModel[Any], plan: TrainingPlan
) -> None:
    """Only the first fit has seen validation ratings, so neural models do not start later ones.

    The chain of Bayesian MF continues from fit to fit.
    """
    refit = refit_of(fitted, plan)
    if isinstance(fitted, BayesianMF):
        assert refit.learned.keys() == fitted.learned.keys()
        return
    assert refit.learned is fitted.learned
    assert refit.for_refit().max_epochs == refit.max_epochs


def test_a_restored_fit_has_the_same_refit(
    fitted: ConfiguredModel[Any], plan: TrainingPlan, tmp_path: Path
) -> None:
    """An interrupted training therefore resumes to the same result."""
    notes: list[str] = []
    saving = type(fitted)(MODELS[fitted.name].config)
    Checkpoints(tmp_path, False, 0.0).fit(FIT, saving, plan.training)
    restored = type(fitted)(MODELS[fitted.name].config)
    Checkpoints(tmp_path, True, 0.0, notes.append).fit(FIT, restored, plan.training)
    assert len(notes) == 1
    assert restored.learned.keys() == saving.learned.keys() != set()
    profiles = plan.refit_data.matrix.profiles(np.arange(20, dtype=np.int32))
    expected = refit_of(saving, plan).scorer.score(profiles)
    np.testing.assert_allclose(refit_of(restored, plan).scorer.score(profiles), expected, atol=1e-5)


def test_a_refit_from_other_parameters_is_not_restored(
    fitted: ConfiguredModel[Any], plan: TrainingPlan, tmp_path: Path
) -> None:
    """A checkpoint belongs to the fit that its refit started from."""
    training, notes = Training(plan.refit_data), list[str]()
    Checkpoints(tmp_path, False, 0.0).fit(REFIT, fitted.for_refit(), training)
    resumed = Checkpoints(tmp_path, True, 1e9, notes.append)
    anew = fitted.for_refit()
    anew.start = {}
    resumed.fit(REFIT, anew, training)
    assert not notes
    resumed.fit(REFIT, fitted.for_refit(), training)
    assert len(notes) == 1


def test_a_refit_with_other_users_is_refused(
    fitted: ConfiguredModel[Any], plan: TrainingPlan
) -> None:
    """Its parameters would belong to the wrong users."""
    whole = plan.refit_data.matrix
    kept = whole.users < whole.user_count - 5
    matrix = RatingsMatrix.of(
        *(whole.users[kept], whole.items[kept], whole.ratings[kept]),
        *(whole.user_count - 5, whole.item_count),
    )
    fewer = replace(plan.refit_data, matrix=matrix)
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        fitted.for_refit().fit(Training(fewer))


@pytest.mark.parametrize(
    "model",
    [
        AutoRec(ItemAutoRecConfig(epochs=4, hidden_units=8)),
        MF(MFConfig(epochs=4, factors=8, batch=256)),
    ],
    ids=lambda model: model.name,
)
def test_other_models_are_refitted_from_the_start(
    model: ConfiguredModel[Any], plan: TrainingPlan
) -> None:
    """Continuing makes MF and AutoRec worse, so they keep no parameters."""
    model.fit(plan.training)
    assert not model.learned
    assert not model.for_refit().start


def test_the_learning_rate_continues() -> None:
    """After the omitted steps, the rate is that of a whole decay."""
    whole = keras.optimizers.schedules.CosineDecay(0.01, 100, alpha=0.05)
    rest = _RestOfDecay(40, 0.01, 100, alpha=0.05)
    for step in (0, 1, 59, 80):
        assert float(rest(step)) == pytest.approx(float(whole(step + 40)), rel=1e-6)


def test_the_chain_of_a_model_passes_its_parameters_on(plan: TrainingPlan) -> None:
    """The refits of a plan continue the first fit, in this process as in others."""
    starts: dict[str, bool] = {}
    model = BayesianMF(MODELS["bayesian_mf"].config)
    for stage, unfitted, training in plan.chain(model, lambda _: None):
        starts[stage] = bool(unfitted.start)
        unfitted.fit(training)
    assert starts == {FIT: False, REFIT: True, FINAL_FIT: True}
