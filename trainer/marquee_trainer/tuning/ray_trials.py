"""Runs the trials of a search as trials of Ray Tune, on a cluster whose nodes need this package.

A model's Optuna study (`study.py`) proposes the hyperparameters of a trial and ends trials early,
so it is both the searcher and the stopper of Ray Tune. Ray's own `OptunaSearch` could neither
alternate with trials near the best one, nor search several models in one experiment, nor prune, nor
record what another run needs to continue.

Ray Tune repeats a trial whose worker or node has died.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError
from ray.tune.search import Searcher

from marquee_core.tasks.task import MAX_TRIES, TaskError
from marquee_trainer.tuning.schedule import EPOCH, ERROR, LOSS, MSE, SECONDS, Schedule
from marquee_trainer.tuning.study import ModelStudy
from marquee_trainer.tuning.task import TuningTask
from marquee_trainer.tuning.trials import Search

# The keys of a trial's configuration.
_MODEL, _PARAMETERS = "model", "parameters"
# No output, no files of results, no handler of Ctrl-C, and no change of the work folder.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_trials_on_ray(
    studies: Sequence[ModelStudy],
    task: TuningTask,
    seconds: float,
    max_trials: int,
    on_trial: Callable[[Search], None],
) -> None:
    """Runs trials on the cluster that this process is connected to, one on each core.

    Args:
        studies: The studies of the models.
        task: What the trials do.
        seconds: The time for all trials, in seconds; trials in progress are finished. Each model
            has at least one complete trial.
        max_trials: The maximum number of trials of each model in this run; 0 for no limit.
        on_trial: Called after each trial with the search that it belongs to.

    Raises:
        TaskError: The worker of a model's trial died repeatedly, and the model has no other trial;
            or the connection is that of a Ray client (`ray://`).
        Exception: An exception that a trial raised.
    """
    if ray.util.client.ray.is_connected():
        raise TaskError("Ray Tune cannot search through a Ray client; give the host:port of Ray")
    schedule = Schedule(studies, seconds, max_trials, on_trial, _cores)
    trainable = tune.with_resources(tune.with_parameters(_run_trial, task=task), {"cpu": 1})
    with _quiet(), tempfile.TemporaryDirectory(prefix="marquee-tune-") as folder:
        try:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=_StudySearcher(schedule),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=folder,
                    stop=_StudyStopper(schedule),
                    failure_config=tune.FailureConfig(max_failures=MAX_TRIES - 1),
                    verbose=0,
                ),
            ).fit()
        except TuneError as error:
            raise schedule.error or error from None
        finally:
            schedule.abandon_all()


def _cores() -> int:
    """The number of cores of the cluster, which may change."""
    return int(ray.cluster_resources().get("CPU", 0))


def _run_trial(config: Mapping[str, Any], *, task: TuningTask) -> None:
    """Fits a model in a worker of Ray Tune."""
    began = time.monotonic()

    def report(**values: object) -> None:
        tune.report({**values, SECONDS: time.monotonic() - began})

    def on_error(epoch: int, mse: float) -> None:
        report(**{EPOCH: epoch, MSE: mse})

    try:
        loss = task.fit(config[_MODEL], config[_PARAMETERS], on_error)
    except Exception as error:  # Ray Tune would repeat the trial.
        report(**{ERROR: error})
    else:
        report(**{LOSS: loss})


class _StudySearcher(Searcher):  # type: ignore[misc]
    """Proposes trials to Ray Tune."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the configuration of a trial; None if there is none now."""
        with self._schedule.keeping_error():
            found = self._schedule.next(trial_id)
            if found is None:
                return str(Searcher.FINISHED) if self._schedule.is_finished else None
        model, parameters = found
        return {_MODEL: model, _PARAMETERS: dict(parameters)}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002
        error: bool = False,
    ) -> None:
        """Notices trials that Ray Tune gives up; the stopper has received all results."""
        if error:
            with self._schedule.keeping_error():
                self._schedule.lose(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the studies are in the file of trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing."""


class _StudyStopper(tune.Stopper):  # type: ignore[misc]
    """Receives the reports of the trials, and ends them."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends after a report."""
        with self._schedule.keeping_error():
            return self._schedule.receive(trial_id, result)

    def stop_all(self) -> bool:
        """Whether all trials end now."""
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Sets the environment variables of Ray Tune, and silences its log."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    log = logging.getLogger("ray.tune")
    level = log.level
    os.environ.update(_ENVIRONMENT)
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
