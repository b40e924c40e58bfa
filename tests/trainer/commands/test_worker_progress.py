"""The output of `--processes` and `--ray`, and the options that they exclude."""

from __future__ import annotations

import pytest

from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.commands.worker_progress import WorkerProgress
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Epoch
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.parallel_fits import StageFinished, StageStarted
from marquee_trainer.training.plan import FINAL_FIT, FIT, REFIT, TrainingPlan


def test_each_finished_fit_prints_a_line_with_the_remaining_time(
    small_dataset: RatingsDataset, small_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only finished fits are printed, and a repeated fit counts once."""
    plan = TrainingPlan(small_dataset, small_split, TrainingConfig())
    progress = WorkerProgress(plan, [EASE(), ItemCF()])
    progress(StageStarted("ease", FIT))
    progress(Epoch(1.0, None))
    progress(StageFinished("ease", FIT, 2.5))
    progress(StageFinished("ease", FIT, 2.5))
    for model, stage in (("ease", REFIT), ("ease", FINAL_FIT), ("item_cf", FIT)):
        progress(StageFinished(model, stage, 1.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert "fit ease" in lines[0]
    assert "2.5 s  (1 of 6 fits, roughly " in lines[0]
    assert "(1 of 6 fits" in lines[1]
    assert "(4 of 6 fits" in lines[4]


@pytest.mark.parametrize(
    "changes",
    [
        {"budget": "10m", "processes": 2},
        {"budget": "10m", "ray": "auto"},
        {"processes": 2, "ray": "auto"},
    ],
)
def test_contradictory_options_are_refused(changes: dict[str, object]) -> None:
    """A budget chooses one model at a time, and all fits run in one kind of worker."""
    with pytest.raises(ValueError, match="cannot be combined with"):
        TrainSettings(**changes)  # type: ignore[arg-type]
