"""Fits the models of a run in parallel, in other processes, before the run itself.

Each model's chain of fits is a task (`plan.py`), which returns its fits as checkpoints. The run
restores them as it restores those of an interrupted training: only if they are exactly the fits
that it would do. A task that is restarted because its process died resumes from its own
checkpoints.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from marquee_core.tasks.task import Report, RunTasks
from marquee_trainer.models.costs import estimated_cost
from marquee_trainer.models.model import Epoch, Model
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.checkpoints import Checkpoints, checkpoint_name
from marquee_trainer.training.plan import TrainingPlan


@dataclass(frozen=True)
class StageStarted:
    """A fit has started.

    Attributes:
        model: The name of the model.
        stage: The stage of its chain.
    """

    model: str
    stage: str


@dataclass(frozen=True)
class StageFinished:
    """A fit has finished.

    Attributes:
        model: The name of the model.
        stage: The stage of its chain.
        seconds: How long it took.
    """

    model: str
    stage: str
    seconds: float


@dataclass(frozen=True)
class ChainWorker:
    """Fits models, one chain of fits at a time; implements `Work`.

    Attributes:
        plan: What the models are fitted on.
        folder: The folder of checkpoints that all processes share; None if workers on other
            machines return their checkpoints instead.
    """

    plan: TrainingPlan
    folder: Path | None

    def __call__(self, model: Model, report: Report, /) -> bytes:
        """Fits a model in all stages of its chain.

        Returns:
            The checkpoints as a tar file; empty if they are in the shared folder.
        """
        if self.folder is not None:
            self._fit(model, self.folder, report)
            return b""
        with TemporaryDirectory(prefix="marquee-fit-") as name:
            folder = Path(name)
            self._fit(model, folder, report)
            return _pack(folder, [checkpoint_name(stage, model) for stage in self.plan.stages])

    @blas_threads(1)
    def _fit(self, model: Model, folder: Path, report: Report) -> None:
        checkpoints = Checkpoints(folder, resume=True, min_seconds=0.0)

        def on_epoch(epoch: Epoch) -> None:
            report(epoch)

        for stage, unfitted, training in self.plan.chain(model, on_epoch):
            report(StageStarted(model.name, stage))
            _, seconds = checkpoints.fit(stage, unfitted, training)
            report(StageFinished(model.name, stage, seconds))


def fit_in_parallel(
    plan: TrainingPlan,
    models: Sequence[Model],
    folder: Path,
    run: RunTasks,
    is_shared: bool,
    on_report: Callable[[StageStarted | StageFinished | Epoch], None],
) -> None:
    """Fits models in other processes, and writes their checkpoints to a folder.

    Models whose fits cannot be restored are skipped; the run fits them itself.

    Args:
        plan: What the models are fitted on.
        models: The unfitted models.
        folder: The folder of the checkpoints of the run.
        run: Runs the tasks.
        is_shared: Whether the processes can write to `folder`.
        on_report: Called when a fit starts and finishes, and after each epoch.

    Raises:
        TaskError: A process died repeatedly.
        OSError: A checkpoint cannot be written.
    """
    # The longest chains first, so that none runs alone at the end.
    ratings = len(plan.split.train)
    tasks = sorted(
        (model for model in models if model.state is not None),
        key=lambda model: -estimated_cost(model.name).at(ratings).fit_s,
    )
    work = ChainWorker(replace(plan), folder if is_shared else None)
    with closing(run(work, tasks, lambda _, value: on_report(value))) as results:
        for _, packed in results:
            if packed:
                _unpack(packed, folder)


def _pack(folder: Path, names: Sequence[str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.add(folder / name, name)
    return stream.getvalue()


def _unpack(packed: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        # Only files and folders below the target folder are extracted.
        archive.extractall(folder, filter="data")
