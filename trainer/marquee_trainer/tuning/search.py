"""Searches hyperparameters on validation ratings, which are split off the training part.

The test ratings are not used. Each model is one Optuna study. The first trial is the start
configuration. Then trials near the best one so far alternate with trials that the tree-structured
Parzen estimator (Bergstra et al., 2011) proposes. The start is already good, and from few trials
the estimator learns little about many hyperparameters.

A trial of a model with epochs is pruned, that is, ended early, when its validation error is among
the worst quarter of the earlier trials at the same epoch.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from marquee_core.output import Output
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.interactions import Interactions
from marquee_trainer.data.split import Split
from marquee_trainer.metrics.ranking_metrics import TOP, RankingTask, mean_ndcg
from marquee_trainer.models.configurations import ConfigurationError, value_of, with_parameters
from marquee_trainer.models.model import Epoch, Model, Training, predict_pairs, score_known
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.threads import blas_threads
from marquee_trainer.training.config import TrainingConfig
from marquee_trainer.training.preparation import interactions_of, release_data, validation_split
from marquee_trainer.tuning.spaces import SPACES

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


@dataclass(frozen=True)
class Trial:
    """A configuration and its loss.

    Attributes:
        parameters: The values of all searched hyperparameters, by name.
        loss: The validation loss: the MSE in squared stars, or 1 − NDCG@10 for a ranker. For a
            pruned trial, the MSE of its last epoch.
        seconds: The time to fit the model, in seconds.
        pruned: Whether the trial was ended early, because others were better at that epoch.
    """

    parameters: Mapping[str, float]
    loss: float
    seconds: float
    pruned: bool = False


@dataclass
class Search:
    """The search for one model.

    Attributes:
        model: The name of the model.
        trials: The trials in order, beginning with those of earlier runs of the same study.
        study: The name of the study; empty for none. Losses are comparable only within a study.
    """

    model: str
    trials: list[Trial] = field(default_factory=list)
    study: str = ""

    @property
    def best(self) -> Trial:
        """The trial with the lowest loss among those that were not pruned.

        Raises:
            ValueError: There is no such trial.
        """
        return min((t for t in self.trials if not t.pruned), key=lambda trial: trial.loss)


@blas_threads(1)
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
) -> list[Search]:
    """Searches the hyperparameters of several models, with an equal share of the time for each.

    With `max_trials` and enough time, the result depends only on the arguments and the machine.

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

    Returns:
        A search for each model, in the order of `models`.

    Raises:
        ConfigurationError: A model is unknown, or has no search space.
        OSError: The file of trials cannot be read or written.
    """
    for name in models:
        if name not in SPACES:
            raise ConfigurationError(f"there is no model {name!r} with a search space")
    # Optuna would report each study and trial on stderr.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = TrainingConfig.for_dataset(dataset, seed)
    inner = validation_split(dataset, split, config)
    task = _Task(
        release_data(dataset, inner.train, config.baseline),
        interactions_of(dataset, inner.test),
        (dataset.scale.low, dataset.scale.high),
        config,
        dataset.from_stars,
    )
    ratings = dataset.fingerprint(inner.train)[:_NAME_DIGITS]
    trials = (
        InMemoryStorage() if storage is None else JournalStorage(JournalFileBackend(str(storage)))
    )
    searches = []
    for name in models:
        model = _ModelSearch(name, task, start.get(name, {}), trials, f"{name} {ratings} {seed}")
        end = time.monotonic() + 60.0 * minutes / len(models)
        made = 0
        while not model.has_result or (
            time.monotonic() < end and (not max_trials or made < max_trials)
        ):
            model.run_trial()
            made += 1
            on_trial(model.search)
        searches.append(model.search)
    return searches


@dataclass(frozen=True)
class _Task:
    """The data on which trials are fitted and evaluated.

    Attributes:
        data: The ratings to fit on.
        validation: The ratings on which the loss is measured.
        scale: The lowest and the highest rating, to which predictions are clipped.
        config: The configuration of training.
        from_stars: Converts a threshold in stars to the scale of the ratings.
    """

    data: ReleaseData
    validation: Interactions
    scale: tuple[float, float]
    config: TrainingConfig
    from_stars: Callable[[float], float]

    def loss(self, model: Model) -> float:
        """The validation loss of a fitted model, measured with the scorer that serves it."""
        scorer, validation = model.scorer, self.validation
        if scorer.output is Output.STARS:
            predicted = predict_pairs(scorer, self.data, validation.users, validation.items)
            return float(np.mean((np.clip(predicted, *self.scale) - validation.ratings) ** 2))
        task = RankingTask.of(self.data.matrix, validation, self.config.relevant_stars)
        return 1.0 - mean_ndcg(task, score_known(scorer, self.data), TOP)


class _ModelSearch:
    """The study of one model.

    Attributes:
        search: The trials so far.
    """

    def __init__(
        self,
        name: str,
        task: _Task,
        start: Mapping[str, float],
        storage: InMemoryStorage | JournalStorage,
        study: str,
    ) -> None:
        """Creates the study, or continues it if the storage holds it.

        Args:
            name: The name of the model.
            task: The data on which trials are fitted and evaluated.
            start: The hyperparameters of the first trial; defaults are used for missing ones.
            storage: Where trials are stored.
            study: The name of the study, without the part that identifies the search space.
        """
        self._task, self._space = task, SPACES[name]
        self._model_class = MODELS_BY_NAME[name]
        self._base = with_parameters(self._model_class.config_type(), start)
        self._start = {
            path: values.start(value_of(self._base, path)) for path, values in self._space.items()
        }
        # Hyperparameters that are not searched stay as configured, and affect the losses too.
        fixed = zlib.crc32(repr((sorted(self._space.items()), self._fixed())).encode())
        self._study = optuna.create_study(
            storage=storage,
            study_name=f"{study} {fixed:08x}",
            load_if_exists=True,
            pruner=optuna.pruners.PercentilePruner(
                _KEPT_PERCENT, _UNPRUNED_TRIALS, _UNPRUNED_EPOCHS
            ),
        )
        finished = self._finished()
        # With only the seed, every run of the study would draw the same values.
        seeds = np.random.SeedSequence(
            (task.config.seed, zlib.crc32(name.encode()), len(finished))
        ).generate_state(2)
        self._random = np.random.default_rng(seeds[0])
        self._study.sampler = TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=int(seeds[1]))
        self.search = Search(name, [_trial(found) for found in finished], self._study.study_name)
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

    def run_trial(self) -> None:
        """Fits the model with the next hyperparameters and records the loss."""
        if self.has_result and len(self.search.trials) % 2:
            self._study.enqueue_trial(self._near_best())
        drawn = self._study.ask(self._distributions)
        parameters = dict(self._start)
        if not drawn.user_attrs.get(_START):
            parameters = {
                path: values.rounded(drawn.params[path]) for path, values in self._space.items()
            }
        began = time.monotonic()
        try:
            loss, state = self._fit(parameters, drawn)
        except BaseException:
            # This includes Ctrl-C; otherwise the trial would count as running forever.
            self._study.tell(drawn, state=TrialState.FAIL)
            raise
        seconds = round(time.monotonic() - began, 2)
        drawn.set_user_attr(_PARAMETERS, parameters)
        drawn.set_user_attr(_SECONDS, seconds)
        # Optuna already has the loss of a pruned trial: that of its last epoch.
        self._study.tell(drawn, None if state is TrialState.PRUNED else loss, state)
        pruned = state is TrialState.PRUNED
        self.search.trials.append(Trial(parameters, loss, seconds, pruned))

    def _near_best(self) -> dict[str, float]:
        """The best hyperparameters with about half of them changed, at least one."""
        best = self.search.best.parameters
        changes = self._random.random(len(self._space)) < _CHANGE_PROBABILITY
        changes[self._random.integers(len(self._space))] = True
        return {
            path: values.near(best[path], _SPREAD, self._random) if change else best[path]
            for (path, values), change in zip(self._space.items(), changes, strict=True)
        }

    def _fit(
        self, parameters: Mapping[str, float], trial: optuna.Trial
    ) -> tuple[float, TrialState]:
        """Fits the model; returns its loss, and whether the trial was completed or pruned."""
        task = self._task
        model = self._model_class(with_parameters(self._base, parameters))
        errors: list[float] = []

        def on_epoch(epoch: Epoch) -> None:
            if epoch.validation_mse is None or not np.isfinite(epoch.validation_mse):
                return
            errors.append(epoch.validation_mse)
            trial.report(epoch.validation_mse, len(errors))
            if trial.should_prune():
                raise optuna.TrialPruned

        # The fit may choose the number of epochs on the validation ratings, but no hyperparameters,
        # which would then differ from those of the trial.
        validation = task.validation if model.max_epochs else None
        try:
            model.fit(
                Training(
                    task.data,
                    validation,
                    task.config.seed,
                    on_epoch,
                    task.config.relevant_stars,
                    task.from_stars,
                )
            )
        except optuna.TrialPruned:
            return errors[-1], TrialState.PRUNED
        return task.loss(model), TrialState.COMPLETE

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
