"""Fits models in worker processes, as configured by `--processes` and `--ray`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from marquee_core.cores import thread_limits, usable_cores
from marquee_core.tasks.processes import run_in_processes
from marquee_core.tasks.ray_tasks import run_on_ray
from marquee_core.tasks.task import RunTasks
from marquee_trainer.commands.progress import ENSEMBLE, EVALUATE
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.commands.worker_progress import WorkerProgress
from marquee_trainer.models.model import Model
from marquee_trainer.training.checkpoints import Checkpoints
from marquee_trainer.training.parallel_fits import fit_in_parallel
from marquee_trainer.training.plan import TrainingPlan
from marquee_trainer.training.progress import Progress


@dataclass(frozen=True)
class FitWorkers:
    """Worker processes that fit models.

    Attributes:
        run: Runs tasks in the workers.
        folder: The folder of the run's checkpoints.
        is_shared: Whether the workers can write to that folder.
    """

    run: RunTasks
    folder: Path
    is_shared: bool

    @classmethod
    def from_settings(cls, settings: TrainSettings) -> Self | None:
        """Creates the configured workers; returns None to fit in this process."""
        folder = settings.checkpoint_folder
        if settings.ray:
            return cls(partial(run_on_ray, address=settings.ray), folder, False)
        if settings.processes == 1:
            return None
        threads = max(1, usable_cores() // settings.processes)
        run = partial(
            run_in_processes,
            processes=settings.processes,
            environment=thread_limits(threads),
        )
        return cls(run, folder, True)

    def fit(self, plan: TrainingPlan, models: Sequence[Model]) -> Checkpoints:
        """Fits models, and returns the checkpoints from which training restores the fits.

        Raises:
            TaskError: A worker died repeatedly.
            OSError: A checkpoint cannot be written.
        """
        progress = WorkerProgress(plan, models)
        fit_in_parallel(plan, models, self.folder, self.run, self.is_shared, progress)
        return Checkpoints(self.folder, resume=True, min_seconds=0.0)


def without_fit_steps(progress: Progress) -> Progress:
    """Returns callbacks that report only the steps of a training that are not fits."""

    def on_step(name: str, epochs: int) -> None:
        if name in (ENSEMBLE, EVALUATE):
            progress.on_step(name, epochs)

    return Progress(on_step)
