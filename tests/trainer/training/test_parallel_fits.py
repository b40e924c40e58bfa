"""Models that were fitted in other processes are used by the run, with the same result."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from marquee_core.tasks.processes import run_in_processes
from marquee_core.tasks.task import RunTasks
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.costs import COSTS
from marquee_trainer.models.linear.ease import EASE
from marquee_trainer.models.model import Epoch
from marquee_trainer.models.neighbours.item_cf import ItemCF
from marquee_trainer.models.neighbours.user_cf import UserCF
from marquee_trainer.models.neural.mf import MF
from marquee_trainer.training.checkpoints import Checkpoints
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.parallel_fits import StageFinished, StageStarted, fit_in_parallel
from marquee_trainer.training.plan import FINAL_FIT, FIT, REFIT, TrainingPlan
from marquee_trainer.training.progress import Progress
from marquee_trainer.training.refit import refit_on_all_ratings
from marquee_trainer.training.results import TrainingResult
from marquee_trainer.training.train import train
from toy.lists import run_here

MODELS = (UserCF, ItemCF, EASE)


def check_taken(plan: TrainingPlan, folder: Path, trained: TrainingResult) -> None:
    """Train with the fits in a folder, and check that all are used and give the same result."""
    notes: list[str] = []
    checkpoints = Checkpoints(folder, True, 1e9, notes.append)
    again = train(
        plan.dataset, plan.split, MODELS, plan.config, Progress(), checkpoints=checkpoints
    )
    again = refit_on_all_ratings(
        plan.dataset, plan.split, again, plan.config, Progress(), checkpoints
    )
    assert len(notes) == 3 * len(MODELS)
    assert again.evaluation.metrics == trained.evaluation.metrics
    assert again.fits == trained.fits


@pytest.mark.parametrize("is_shared", [True, False])
def test_fits_of_workers_are_used(
    small_dataset: RatingsDataset,
    small_split: Split,
    small_trained: TrainingResult,
    tmp_path: Path,
    is_shared: bool,
) -> None:
    """This holds if workers share a folder with the run, and if they return their checkpoints."""
    plan = TrainingPlan(small_dataset, small_split, TrainingConfig())
    reports: list[StageStarted | StageFinished | Epoch] = []
    models = [make() for make in MODELS]
    fit_in_parallel(plan, models, tmp_path / "fits", run_here, is_shared, reports.append)
    done = [(r.model, r.stage) for r in reports if isinstance(r, StageFinished)]
    # The longest chain comes first.
    ratings = len(small_split.train)
    names = sorted(
        (model.name for model in models), key=lambda name: -COSTS[name].at(ratings).fit_s
    )
    assert done == [(name, stage) for name in names for stage in (FIT, REFIT, FINAL_FIT)]
    check_taken(plan, tmp_path / "fits", small_trained)


@pytest.mark.slow
def test_a_killed_worker_loses_only_the_fit_in_progress(
    small_dataset: RatingsDataset, small_split: Split, small_trained: TrainingResult, tmp_path: Path
) -> None:
    """Its model is restarted from the last finished fit, and the others are not affected."""
    plan = TrainingPlan(small_dataset, small_split, TrainingConfig())
    begun: list[tuple[str, str]] = []

    def on_report(report: StageStarted | StageFinished | Epoch) -> None:
        if not isinstance(report, StageStarted):
            return
        begun.append((report.model, report.stage))
        if begun.count(("ease", REFIT)) == 1 and begun[-1] == ("ease", REFIT):
            # With one worker, there is one child process.
            (child,) = psutil.Process().children()
            child.kill()

    run: RunTasks = partial(run_in_processes, processes=1)
    models = [make() for make in MODELS]
    fit_in_parallel(plan, models, tmp_path / "fits", run, True, on_report)
    assert begun.count(("ease", FIT)) == 2
    assert begun.count(("user_cf", FIT)) == 1
    check_taken(plan, tmp_path / "fits", small_trained)


@pytest.mark.slow
def test_tensorflow_models_are_returned_as_saved_folders(
    small_dataset: RatingsDataset, small_split: Split, tmp_path: Path
) -> None:
    """The models have the scores of the models fitted by the worker, and report their epochs."""
    plan = TrainingPlan(small_dataset, small_split, TrainingConfig(), with_final_fit=False)
    reports: list[StageStarted | StageFinished | Epoch] = []
    model = MF().with_epochs(2)
    run: RunTasks = partial(run_in_processes, processes=1)
    fit_in_parallel(plan, [model], tmp_path / "fits", run, False, reports.append)
    assert sum(isinstance(report, Epoch) for report in reports) >= 3
    here = MF().with_epochs(2)
    here.fit(plan.training)
    restored = MF().with_epochs(2)
    notes: list[str] = []
    Checkpoints(tmp_path / "fits", True, 0.0, notes.append).fit(FIT, restored, plan.training)
    assert len(notes) == 1
    profiles = plan.training.data.matrix.profiles(np.arange(20, dtype=np.int32))
    np.testing.assert_allclose(
        restored.scorer.score(profiles), here.scorer.score(profiles), atol=1e-3
    )
