"""A time budget drops or shortens models, and reports it."""

from __future__ import annotations

import numpy as np
import pytest

from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.costs import COSTS
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.linear.ials import IALS
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.models.registry import MODELS, MODELS_BY_NAME
from marquee_trainer.training.budget import Budget
from toy.clock import Clock


@pytest.fixture(scope="module")
def matrix() -> RatingsMatrix:
    """A matrix with as many ratings as costs were measured with, so that they apply unchanged."""
    users, items = np.divmod(np.arange(72_000, dtype=np.int32), 100)
    return RatingsMatrix.of(users, items, np.ones(72_000, np.float32), 720, 100)


def total_cost(name: str) -> float:
    """Return the estimated seconds of a model in a whole run: its fit and both refits."""
    cost = COSTS[name].at(72_000)
    return cost.fit_s + 2.5 * cost.refit_s


def test_every_registered_model_has_a_cost() -> None:
    """No cost belongs to a model that does not exist."""
    assert set(COSTS) == set(MODELS_BY_NAME)


def test_a_generous_budget_admits_everything(matrix: RatingsMatrix) -> None:
    """No model is changed, and nothing is reported."""
    notes: list[str] = []
    budget = Budget(1e6, notes.append, Clock())
    for kind in MODELS:
        model = kind()
        assert budget.admit(model, matrix) is model
        budget.record(model, matrix, 1.0)
    assert not notes


def test_the_most_useful_models_come_first() -> None:
    """The order does not depend on that of the registry."""
    budget = Budget(1.0, lambda _: None, Clock())
    models = [kind() for kind in MODELS]
    assert [model.name for model in budget.order(models)] == list(COSTS)


def test_models_that_exceed_the_budget_are_dropped_and_reported(matrix: RatingsMatrix) -> None:
    """The note has the time that the model needs and the remaining time."""
    notes: list[str] = []
    budget = Budget(total_cost("ials"), notes.append, Clock())
    assert budget.admit(IALS(), matrix) is None
    assert budget.admit(ItemCF(), matrix) is not None
    [note] = notes
    assert note.startswith("budget: ials is left out; it needs about")


def test_a_model_with_epochs_is_shortened_if_enough_of_them_fit(
    matrix: RatingsMatrix,
) -> None:
    """With half of the time it gets half of the epochs, and with a tenth it is dropped."""
    notes: list[str] = []
    full = MF()
    # A fifth of the budget is reserved for other work.
    half = Budget(total_cost("mf") / 2 / 0.8, notes.append, Clock()).admit(full, matrix)
    assert isinstance(half, MF)
    assert half.max_epochs == pytest.approx(full.max_epochs / 2, abs=1)
    assert notes == [
        f"budget: mf is trained for at most {half.max_epochs} of {full.max_epochs} epochs"
    ]
    assert Budget(total_cost("mf") / 10, notes.append, Clock()).admit(full, matrix) is None


def test_elapsed_time_corrects_the_estimates(matrix: RatingsMatrix) -> None:
    """On a machine that is ten times slower than estimated, the next model no longer fits."""
    for slowdown, is_admitted in ((1.0, True), (10.0, False)):
        clock, notes = Clock(), list[str]()
        budget = Budget(20 * total_cost("ease"), notes.append, clock)
        ease = budget.admit(EASE(), matrix)
        assert ease is not None
        clock.now += slowdown * COSTS["ease"].at(72_000).fit_s
        budget.record(ease, matrix, slowdown * COSTS["ease"].at(72_000).fit_s)
        assert (budget.admit(IALS(), matrix) is not None) is is_admitted
        assert bool(notes) is not is_admitted


def test_a_slow_machine_admits_fewer_models_from_the_start(matrix: RatingsMatrix) -> None:
    """The measured speed of the machine corrects the first estimate."""
    for slowdown, is_admitted in ((1.0, True), (3.0, False)):
        budget = Budget(2 * total_cost("ease") / 0.8, lambda _: None, Clock(), slowdown=slowdown)
        assert (budget.admit(EASE(), matrix) is not None) is is_admitted


def test_time_for_refits_is_reserved(matrix: RatingsMatrix) -> None:
    """After a fit, the time for the two refits of the model is subtracted from what is left."""
    clock = Clock()
    budget = Budget(total_cost("bayesian_mf") * 1.05 / 0.8, lambda _: None, clock)
    model = budget.admit(MODELS_BY_NAME["bayesian_mf"](), matrix)
    assert model is not None
    clock.now += COSTS["bayesian_mf"].at(72_000).fit_s
    budget.record(model, matrix, COSTS["bayesian_mf"].at(72_000).fit_s)
    assert budget.admit(IALS(), matrix) is None
    assert budget.admit(ItemCF(), matrix) is not None


def test_larger_data_costs_more(matrix: RatingsMatrix) -> None:
    """Twice the ratings cost between once and four times as much."""
    users, items = np.divmod(np.arange(144_000, dtype=np.int32), 100)
    twice = RatingsMatrix.of(users, items, np.ones(144_000, np.float32), 1440, 100)
    for cost in COSTS.values():
        assert (
            cost.at(matrix.rating_count).fit_s
            < cost.at(twice.rating_count).fit_s
            < 4 * cost.at(matrix.rating_count).fit_s
        )
