"""Chooses which of several models the next trial belongs to, while trials run in parallel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from marquee_core.tasks.task import MAX_TRIES, TaskError
from marquee_trainer.tuning.study import ModelStudy, Proposal
from marquee_trainer.tuning.trials import Search

EPOCH, MSE, LOSS, SECONDS, ERROR = "epoch", "mse", "loss", "seconds", "error"
"""The keys of a trial's reports: the number of an epoch and the validation MSE after it, the loss
of the trial, the seconds since its start, and the exception that it raised.
"""


@dataclass
class _ActiveTrial:
    """A trial in progress.

    Attributes:
        study: The study that it belongs to.
        proposal: The trial of the study.
        began: When it was proposed, by the monotonic clock.
    """

    study: ModelStudy
    proposal: Proposal
    began: float


class Schedule:
    """Starts trials, and records their results.

    The next trial is one of the model that has used the least time so far. Each model has at least
    one complete trial.

    Attributes:
        error: The exception that a block of `keeping_error` raised, if any.
    """

    def __init__(
        self,
        studies: Sequence[ModelStudy],
        seconds: float,
        max_trials: int,
        on_trial: Callable[[Search], None],
        cores: Callable[[], int],
    ) -> None:
        """Creates the schedule, and starts its clock.

        Args:
            studies: The studies of the models.
            seconds: The time in which trials begin, in seconds.
            max_trials: The maximum number of trials of each model; 0 for no limit.
            on_trial: Called after each trial with the search that it belongs to.
            cores: Returns the number of trials that can run at the same time.
        """
        self._studies, self._max_trials, self._on_trial = studies, max_trials, on_trial
        self._cores = cores
        self.error: Exception | None = None
        self._end = time.monotonic() + seconds
        self._active: dict[str, _ActiveTrial] = {}
        self._used = {study.search.model: 0.0 for study in studies}
        self._begun = dict.fromkeys(self._used, 0)

    def __deepcopy__(self, memo: dict[int, object]) -> Schedule:
        """Returns the schedule itself, which Ray Tune must not copy."""
        return self

    def __getstate__(self) -> dict[str, object]:
        """Returns nothing: Ray Tune pickles the schedule for `Tuner.restore`, which is not used."""
        return {}

    @contextmanager
    def keeping_error(self) -> Iterator[None]:
        """Keeps an exception that the block raises as `error`, because Ray Tune replaces it."""
        try:
            yield
        except Exception as error:
            self.error = error
            raise

    def next(self, trial_id: str) -> tuple[str, Mapping[str, float]] | None:
        """Starts the next trial, if there is one now.

        Returns:
            The name of its model and its hyperparameters.
        """
        ready = [study for study in self._studies if self._may_begin(study)]
        if not ready or len(self._active) >= max(1, self._cores()):
            return None
        study = min(ready, key=self._time_of)
        proposal = study.propose()
        self._active[trial_id] = _ActiveTrial(study, proposal, time.monotonic())
        self._begun[study.search.model] += 1
        return study.search.model, proposal.parameters

    @property
    def is_finished(self) -> bool:
        """Whether no trial is in progress and none will begin."""
        return not self._active and not any(map(self._may_begin, self._studies))

    def receive(self, trial_id: str, report: Mapping[str, Any]) -> bool:
        """Receives a report of a trial, and decides whether the trial ends."""
        trial = self._active.get(trial_id)
        if trial is None:
            return True
        if ERROR in report:
            raise report[ERROR]
        if LOSS in report:
            self._finish(trial_id, report[LOSS], report[SECONDS])
            return True
        pruned = trial.study.should_prune(trial.proposal, report[EPOCH], report[MSE])
        if pruned:
            self._finish(trial_id, None, report[SECONDS])
        return pruned

    def lose(self, trial_id: str) -> None:
        """Gives up a trial whose worker has died repeatedly.

        Raises:
            TaskError: The model has no other trial.
        """
        trial = self._active.pop(trial_id, None)
        if trial is None:
            return
        search = trial.study.search
        self._used[search.model] += time.monotonic() - trial.began
        trial.study.abandon(trial.proposal)
        search.lost += 1
        if not trial.study.has_result and not self._is_active(trial.study):
            raise TaskError(
                f"the worker of a trial of {search.model} died {MAX_TRIES} times; the most common "
                "cause is a lack of memory"
            )

    def abandon_all(self) -> None:
        """Marks the trials in progress as failed."""
        while self._active:
            _, trial = self._active.popitem()
            trial.study.abandon(trial.proposal)

    def _finish(self, trial_id: str, loss: float | None, seconds: float) -> None:
        trial = self._active.pop(trial_id)
        trial.study.record(trial.proposal, loss, seconds)
        self._used[trial.study.search.model] += seconds
        self._on_trial(trial.study.search)

    def _may_begin(self, study: ModelStudy) -> bool:
        begun = self._begun[study.search.model]
        if time.monotonic() < self._end and (not self._max_trials or begun < self._max_trials):
            return True
        return not study.has_result and not self._is_active(study)

    def _is_active(self, study: ModelStudy) -> bool:
        return any(trial.study is study for trial in self._active.values())

    def _time_of(self, study: ModelStudy) -> float:
        """The time that the trials of a model have used, in seconds."""
        now = time.monotonic()
        active = (now - trial.began for trial in self._active.values() if trial.study is study)
        return self._used[study.search.model] + sum(active)
