"""The Optuna study of one model, which proposes trials and records their losses.

The first trial is the start configuration. Then trials near the best one so far alternate with
trials that the tree-structured Parzen estimator (Bergstra et al., 2011) proposes. The start is
already good, and from few trials the estimator learns little about many hyperparameters.

A trial of a model with epochs is pruned, that is, ended early, when its validation error is among
the worst quarter of the earlier trials at the same epoch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from marquee_trainer.models.configurations import value_of, with_parameters
from marquee_trainer.tuning.spaces import SPACES
from marquee_trainer.tuning.task import TuningTask
from marquee_trainer.tuning.trials import Search, Trial

# For a trial near the best one: the standard deviation of the change, as a share of the range of a
# hyperparameter, and the probability that a hyperparameter changes.
_SPREAD = 0.12
_CHANGE_PROBABILITY = 0.5
# Number of random trials before the estimator is used; a time budget often allows only a few dozen.
_RANDOM_TRIALS = 6
# The share of trials that are not pruned, in percent; the number of complete trials before pruning
# begins; and the number of epochs before a trial can be pruned.
_KEPT_PERCENT = 75.0
_UNPRUNED_TRIALS = 5
_UNPRUNED_EPOCHS = 3
# Digits of a fingerprint in the name of a study.
_NAME_DIGITS = 12
_START, _PARAMETERS, _SECONDS = "start", "parameters", "seconds"


@dataclass
class Proposal:
    """A trial in progress.

    Attributes:
        trial: The trial of the study.
        parameters: The values of all searched hyperparameters, by name.
        errors: The validation MSE after each epoch so far.
    """

    trial: optuna.Trial
    parameters: Mapping[str, float]
    errors: list[float] = field(default_factory=list)


class ModelStudy:
    """The study of one model.

    Attributes:
        search: The finished trials.
    """

    def __init__(
        self, name: str, task: TuningTask, storage: InMemoryStorage | JournalStorage
    ) -> None:
        """Creates the study, or continues it if the storage holds it.

        Args:
            name: The name of the model.
            task: What its trials do.
            storage: Where trials are stored.

        Raises:
            ConfigurationError: The hyperparameters to start from are invalid.
        """
        self._space, self._base = SPACES[name], task.configuration(name)
        self._start = {
            path: values.start(value_of(self._base, path)) for path, values in self._space.items()
        }
        # Hyperparameters that are not searched stay as configured, and affect the losses too.
        fixed = zlib.crc32(repr((sorted(self._space.items()), self._fixed())).encode())
        seed = task.config.seed
        self._study = optuna.create_study(
            storage=storage,
            study_name=f"{name} {task.fingerprint[:_NAME_DIGITS]} {seed} {fixed:08x}",
            load_if_exists=True,
            pruner=optuna.pruners.PercentilePruner(
                _KEPT_PERCENT, _UNPRUNED_TRIALS, _UNPRUNED_EPOCHS
            ),
        )
        finished = self._finished()
        # With only the seed, every run of the study would draw the same values.
        seeds = np.random.SeedSequence(
            (seed, zlib.crc32(name.encode()), len(finished))
        ).generate_state(2)
        self._random = np.random.default_rng(seeds[0])
        self._study.sampler = TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=int(seeds[1]))
        self.search = Search(name, [_trial(found) for found in finished], self._study.study_name)
        self._proposed = len(finished)
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        tried = [self._start, *(trial.parameters for trial in self.search.trials)]
        self._distributions = {
            path: values.distribution(*(parameters[path] for parameters in tried))
            for path, values in self._space.items()
        }
        if not finished and not waiting:
            self._study.enqueue_trial(self._start, user_attrs={_START: True})

    @property
    def has_result(self) -> bool:
        """Whether a trial has completed."""
        return any(not trial.pruned for trial in self.search.trials)

    def propose(self) -> Proposal:
        """Starts the next trial, which must be finished by `record` or `abandon`."""
        if self.has_result and self._proposed % 2:
            self._study.enqueue_trial(self._near_best())
        drawn = self._study.ask(self._distributions)
        self._proposed += 1
        parameters = dict(self._start)
        if not drawn.user_attrs.get(_START):
            parameters = {
                path: values.rounded(drawn.params[path]) for path, values in self._space.items()
            }
        return Proposal(drawn, parameters)

    def should_prune(self, proposal: Proposal, epoch: int, error: float) -> bool:
        """Records the validation MSE after an epoch, and decides whether to end the trial.

        Args:
            proposal: The trial.
            epoch: The number of the epoch, counted from 1. Epochs that have been recorded are
                ignored, because a trial starts again after the loss of its worker.
            error: The validation MSE.
        """
        if epoch <= len(proposal.errors):
            return False
        proposal.errors.append(error)
        proposal.trial.report(error, epoch)
        return proposal.trial.should_prune()

    def record(self, proposal: Proposal, loss: float | None, seconds: float) -> None:
        """Finishes a trial.

        Args:
            proposal: The trial.
            loss: Its validation loss; None if it was pruned.
            seconds: The time to fit the model, in seconds.
        """
        seconds = round(seconds, 2)
        proposal.trial.set_user_attr(_PARAMETERS, dict(proposal.parameters))
        proposal.trial.set_user_attr(_SECONDS, seconds)
        # Optuna already has the loss of a pruned trial: that of its last epoch.
        state = TrialState.PRUNED if loss is None else TrialState.COMPLETE
        self._study.tell(proposal.trial, loss, state)
        final = proposal.errors[-1] if loss is None else loss
        self.search.trials.append(Trial(proposal.parameters, final, seconds, loss is None))

    def abandon(self, proposal: Proposal) -> None:
        """Marks a trial as failed; otherwise it would count as running forever."""
        self._study.tell(proposal.trial, state=TrialState.FAIL)

    def _near_best(self) -> dict[str, float]:
        """The best hyperparameters with about half of them changed, at least one."""
        best = self.search.best.parameters
        changes = self._random.random(len(self._space)) < _CHANGE_PROBABILITY
        changes[self._random.integers(len(self._space))] = True
        return {
            path: values.near(best[path], _SPREAD, self._random) if change else best[path]
            for (path, values), change in zip(self._space.items(), changes, strict=True)
        }

    def _finished(self) -> list[FrozenTrial]:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in trials if _PARAMETERS in trial.user_attrs]

    def _fixed(self) -> str:
        """The configuration without the hyperparameters that are searched."""
        lowest = {path: values.low for path, values in self._space.items()}
        whole = {path: round(low) for path, low in lowest.items() if self._space[path].whole}
        return repr(with_parameters(self._base, lowest | whole))


def _trial(found: FrozenTrial) -> Trial:
    """Converts a trial of the study."""
    attributes, pruned = found.user_attrs, found.state is TrialState.PRUNED
    return Trial(attributes[_PARAMETERS], found.values[0], attributes[_SECONDS], pruned)
