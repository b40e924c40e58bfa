"""Searches hyperparameters on validation ratings, which are split off the training part.

The test ratings are not used. Each model is one Optuna study (`study.py`). Trials run one after
another in this process, or in parallel on a Ray cluster (`ray_trials.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from marquee_core.tasks.ray_tasks import connected
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.split import Split
from marquee_trainer.models.configurations import ConfigurationError
from marquee_trainer.tuning.spaces import SPACES
from marquee_trainer.tuning.study import ModelStudy, Proposal
from marquee_trainer.tuning.task import TuningTask
from marquee_trainer.tuning.trials import Search


def tune(
    dataset: RatingsDataset,
    split: Split,
    models: Sequence[str],
    minutes: float,
    seed: int,
    start: Mapping[str, Mapping[str, float]],
    on_trial: Callable[[Search], None],
    *,
    max_trials: int = 0,
    storage: Path | None = None,
    ray: str = "",
) -> list[Search]:
    """Searches the hyperparameters of several models, with an equal share of the time for each.

    With `max_trials` and enough time, the result depends only on the arguments and the machine.
    With several workers of Ray it does not, because a proposal depends on the trials that are
    finished by then.

    Args:
        dataset: The ratings.
        split: The split of the ratings; only its training part is used.
        models: The names of the models.
        minutes: The time for all searches, in minutes. Each model has at least one trial.
        seed: The seed for the validation split, the models and the search.
        start: The hyperparameters of each model's first trial, by model name; defaults are used for
            missing ones.
        on_trial: Called after each trial with the search so far, whose last trial it is.
        max_trials: The maximum number of trials of each model in this run; 0 for no limit.
        storage: A file that the trials are written to (Optuna's journal format). If it holds trials
            of the same model, ratings, split, seed and search space, the search continues from
            there. None to keep the trials in memory.
        ray: The address of a Ray cluster that runs the trials; empty to run them in this process.

    Returns:
        A search for each model, in the order of `models`.

    Raises:
        ConfigurationError: A model is unknown, or has no search space.
        OSError: The file of trials cannot be read or written.
        TaskError: There is no Ray cluster at the address, or all trials of a model lost their
            workers.
    """
    for name in models:
        if name not in SPACES:
            raise ConfigurationError(f"there is no model {name!r} with a search space")
    # Optuna would report each study and trial on stderr.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task = TuningTask.of(dataset, split, seed, start)
    trials = (
        InMemoryStorage() if storage is None else JournalStorage(JournalFileBackend(str(storage)))
    )
    if ray:
        studies = [ModelStudy(name, task, trials) for name in models]
        with connected(ray):
            # Imported here because Ray is optional.
            from marquee_trainer.tuning.ray_trials import run_trials_on_ray

            run_trials_on_ray(studies, task, 60.0 * minutes, max_trials, on_trial)
        return [study.search for study in studies]
    searches = []
    for name in models:
        study = ModelStudy(name, task, trials)
        end = time.monotonic() + 60.0 * minutes / len(models)
        made = 0
        while not study.has_result or (
            time.monotonic() < end and (not max_trials or made < max_trials)
        ):
            _run_trial(study, task)
            made += 1
            on_trial(study.search)
        searches.append(study.search)
    return searches


def _run_trial(study: ModelStudy, task: TuningTask) -> None:
    """Fits the model with the next hyperparameters and records the loss."""
    proposal = study.propose()

    def on_error(epoch: int, error: float) -> None:
        if study.should_prune(proposal, epoch, error):
            raise optuna.TrialPruned

    began = time.monotonic()
    try:
        loss = _loss(study, task, proposal, on_error)
    except BaseException:
        # This includes Ctrl-C.
        study.abandon(proposal)
        raise
    study.record(proposal, loss, time.monotonic() - began)


def _loss(
    study: ModelStudy,
    task: TuningTask,
    proposal: Proposal,
    on_error: Callable[[int, float], None],
) -> float | None:
    """The loss of a trial; None if it was pruned."""
    try:
        return task.fit(study.search.model, proposal.parameters, on_error)
    except optuna.TrialPruned:
        return None
