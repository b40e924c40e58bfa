"""Fits models in other processes, as `--processes` and `--ray` say."""

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
from marquee_trainer.commands.ahead_progress import AheadProgress
from marquee_trainer.commands.progress import ENSEMBLE, EVALUATE
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.models.model import Model
from marquee_trainer.training.ahead import fit_ahead
from marquee_trainer.training.checkpoints import Checkpoints
from marquee_trainer.training.plan import TrainingPlan
from marquee_trainer.training.progress import Progress


@dataclass(frozen=True)
class Elsewhere:
    """Other processes that fit models.

    Attributes:
        run: Runs the tasks there.
        folder: The folder of the checkpoints of the run.
        is_shared: Whether the processes can write to that folder.
    """

    run: RunTasks
    folder: Path
    is_shared: bool

    @classmethod
    def of(cls, settings: TrainSettings) -> Self | None:
        """What the settings ask for; None to fit in this process."""
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
        """Fits models; a training with the checkpoints that are returned takes these fits.

        Raises:
            TaskError: A process has died again and again.
            OSError: A checkpoint cannot be written.
        """
        progress = AheadProgress(plan, models)
        fit_ahead(plan, models, self.folder, self.run, self.is_shared, progress)
        return Checkpoints(self.folder, resume=True, min_seconds=0.0)


def without_fits(progress: Progress) -> Progress:
    """The progress of a training that takes its fits from checkpoints: its other steps."""

    def on_step(name: str, epochs: int) -> None:
        if name in (ENSEMBLE, EVALUATE):
            progress.on_step(name, epochs)

    return Progress(on_step)
