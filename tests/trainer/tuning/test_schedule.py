"""The models of a search share the time of the trials that run in parallel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest
from optuna.storages import InMemoryStorage

from marquee_core.tasks.task import TaskError
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.tuning.schedule import EPOCH, ERROR, LOSS, MSE, SECONDS, Schedule
from marquee_trainer.tuning.study import ModelStudy
from marquee_trainer.tuning.task import TuningTask

HOUR = 3600.0


@pytest.fixture
def schedule(
    small_dataset: RatingsDataset, small_split: Split
) -> Callable[..., tuple[Schedule, list[ModelStudy]]]:
    """A function that makes a schedule of two models on two cores."""
    task = TuningTask.of(small_dataset, small_split, 0, {})

    def make(seconds: float = HOUR, max_trials: int = 0) -> tuple[Schedule, list[ModelStudy]]:
        storage = InMemoryStorage()
        studies = [ModelStudy(name, task, storage) for name in ("item_cf", "ials")]
        return Schedule(studies, seconds, max_trials, lambda _: None, lambda: 2), studies

    return make


def finish(schedule: Schedule, trial: str, seconds: float = 1.0) -> None:
    """Finish a trial with some loss."""
    assert schedule.receive(trial, {LOSS: 0.5, SECONDS: seconds})


def test_models_get_equal_time_rather_than_equal_numbers_of_trials(
    schedule: Callable[..., tuple[Schedule, list[ModelStudy]]],
) -> None:
    """A model whose trials take a third of the time gets about three times as many."""
    plan, _ = schedule()
    begun: Counter[str] = Counter()
    for number in range(40):
        found = plan.next(str(number))
        assert found is not None
        begun[found[0]] += 1
        finish(plan, str(number), 300.0 if found[0] == "item_cf" else 100.0)
    assert begun["ials"] == pytest.approx(3 * begun["item_cf"], abs=3)


def test_no_more_trials_run_than_there_are_cores(
    schedule: Callable[..., tuple[Schedule, list[ModelStudy]]],
) -> None:
    """A third trial begins only when one of two has finished."""
    plan, _ = schedule()
    first, second = plan.next("a"), plan.next("b")
    assert first is not None
    assert second is not None
    assert {first[0], second[0]} == {"item_cf", "ials"}
    assert plan.next("c") is None
    assert not plan.is_finished
    finish(plan, "a")
    assert plan.next("c") is not None


def test_each_model_has_a_result_however_short_the_time(
    schedule: Callable[..., tuple[Schedule, list[ModelStudy]]],
) -> None:
    """Without time, each model has one complete trial, which is the start configuration."""
    plan, studies = schedule(seconds=0.0)
    for number in count():
        found = plan.next(str(number))
        if found is None:
            break
        finish(plan, str(number))
    assert plan.is_finished
    assert [len(study.search.trials) for study in studies] == [1, 1]


def test_the_number_of_trials_is_limited(
    schedule: Callable[..., tuple[Schedule, list[ModelStudy]]],
) -> None:
    """Each model has the given number of trials, including those in progress."""
    plan, studies = schedule(max_trials=3)
    for number in range(6):
        assert plan.next(str(number)) is not None
        finish(plan, str(number))
    assert plan.next("more") is None
    assert plan.is_finished
    assert [len(study.search.trials) for study in studies] == [3, 3]


def test_epochs_of_a_repeated_trial_are_not_reported_twice(
    schedule: Callable[..., tuple[Schedule, list[ModelStudy]]],
) -> None:
    """A trial that starts again with other errors keeps the errors of its first run."""
    plan, studies = schedule()
    plan.next("a")
    for errors in ([0.9, 0.8], [0.7, 0.6, 0.5]):
        for epoch, error in enumerate(errors, start=1):
            assert not plan.receive("a", {EPOCH: epoch, MSE: error, SECONDS: 1.0})
    (trial,) = studies[0]._study.trials
    assert trial.intermediate_values == {1: 0.9, 2: 0.8, 3: 0.5}


def test_a_lost_trial_does_not_end_a_search_that_has_a_result(
    schedule: Callable[..., tuple[Schedule, list[ModelStudy]]],
) -> None:
    """It is counted; but a model without any result is an error, and so is a trial's own error."""
    plan, studies = schedule()
    plan.next("a")
    finish(plan, "a", 1e-9)
    plan.next("b")
    plan.next("c")
    with pytest.raises(TaskError, match="ials died 3 times"):
        plan.lose("b")
    plan.lose("c")
    assert [study.search.lost for study in studies] == [1, 1]
    plan.next("d")
    with pytest.raises(ValueError, match="of a trial"):
        plan.receive("d", {ERROR: ValueError("of a trial"), SECONDS: 1.0})
