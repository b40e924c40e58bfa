"""The base class of the models that are trained in epochs with TensorFlow."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import numpy as np

from marquee_core.scorers.hyperparameters import ModelConfig, PositiveInt
from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.service_names import INFERENCE
from marquee_services.inference.models import INFERENCE_SCORERS, load_scorer
from marquee_trainer.models.model import ConfiguredModel, Epoch, Fit, Training
from marquee_trainer.models.neural.scoring_module import ArrayScorer, FittedScorer, ScoringModule
from marquee_trainer.models.neural.snapshots import Snapshots, epochs_done, weights_of

# The smallest relative improvement of the validation error that counts for early stopping. With a
# decaying learning rate, tiny improvements never stop.
_MIN_IMPROVEMENT = 1e-4


@dataclass(frozen=True)
class EpochConfig(ModelConfig):
    """The hyperparameters of training in epochs with early stopping.

    Attributes:
        epochs: The maximum number of epochs with validation ratings, and the exact number without.
        patience: The number of epochs without a better validation error after which training stops.
    """

    epochs: PositiveInt
    patience: PositiveInt


EpochConfigT_co = TypeVar("EpochConfigT_co", bound=EpochConfig, covariant=True)


class RestoredScorer:
    """A fitted module that was restored from a folder; takes the role of a `FittedScorer`.

    Attributes:
        scorer: The scorer that serves the model.
    """

    def __init__(self, folder: Path, data: ReleaseData) -> None:
        """Loads the scorer from the folder that `FittedScorer.save` wrote."""
        self._folder = folder
        self.scorer = cast("SavedModelScorer | ArrayScorer", load_scorer(folder, data))

    def save(self, folder: Path) -> None:
        """Copies the saved module."""
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)


class TensorFlowModel(ConfiguredModel[EpochConfigT_co], Generic[EpochConfigT_co]):
    """A model that is trained in epochs with TensorFlow and served by the inference service.

    Subclasses implement `fit` with `run_epochs` and `serve`.

    Attributes:
        refit_from: The share of the epochs that a refit takes from the first fit; see
            `snapshots.py`. 0 if refits start anew.
    """

    backend = INFERENCE
    refit_from: ClassVar[float] = 0.0

    def __init__(self, config: EpochConfigT_co | None = None) -> None:
        """Creates an unfitted model; see `ConfiguredModel`."""
        super().__init__(config)
        self._fitted: FittedScorer | None = None
        self._restored: RestoredScorer | None = None
        self._best_epochs = self._config.epochs

    def with_epochs(self, epochs: int) -> Self:
        """Returns an unfitted model of the same configuration with another number of epochs."""
        return type(self)(replace(self._config, epochs=epochs))

    def for_refit(self) -> Self:
        """See `Model.for_refit`: trains for the number of epochs with the best validation error."""
        model = self.with_epochs(self._best_epochs)
        model.start = self.learned
        return model

    @property
    def max_epochs(self) -> int:
        """See `Model.max_epochs`; a refit omits the epochs that it shares with the first fit."""
        return self._config.epochs - self.skipped_epochs

    @property
    def skipped_epochs(self) -> int:
        """The number of epochs that the weights which the fit starts from were trained for."""
        return epochs_done(self.start)

    @property
    def scorer(self) -> SavedModelScorer | ArrayScorer:
        """See `Model.scorer`."""
        return (self._restored or self.fitted).scorer

    @property
    def fitted(self) -> FittedScorer:
        """The fitted module with its signatures.

        Raises:
            RuntimeError: The model is not fitted.
        """
        if self._fitted is None:
            raise RuntimeError(f"{self.name} is not fitted")
        return self._fitted

    def save(self, folder: Path) -> None:
        """See `Model.save`."""
        (self._restored or self.fitted).save(folder)

    @property
    def state(self) -> dict[str, Any] | None:
        """See `Model.state`: None for a model that the inference service cannot load."""
        if self.name not in INFERENCE_SCORERS:
            return None
        return {**self.config_state(), "best_epochs": self._best_epochs}

    def restore(self, folder: Path, data: ReleaseData, state: Mapping[str, Any]) -> None:
        """See `Model.restore`."""
        self.restore_config(state)
        self._best_epochs = int(state["best_epochs"])
        self._restored = RestoredScorer(folder, data)

    def run_epochs(
        self,
        network: Any,
        training: Training,
        epoch: Callable[[], float],
        validate: Callable[[], float],
    ) -> Fit:
        """Trains a network; with validation ratings, stops early and restores the best epoch.

        Args:
            network: Has `get_weights` and `set_weights`, like a Keras model.
            training: The input of the fit.
            epoch: A function that trains for one epoch and returns its mean squared error.
            validate: A function that returns the mean squared error of the validation ratings.
        """
        held_out = training.validation is not None
        curve: list[Epoch] = []
        best, best_epoch, best_weights = np.inf, 0, network.get_weights()
        snapshots = Snapshots(self.refit_from)
        # The last error that was a sufficient improvement, and its epoch.
        mark, mark_epoch = np.inf, 0
        for number in range(self.skipped_epochs + 1, self._config.epochs + 1):
            train_mse = epoch()
            mse = validate() if held_out else None
            if mse is not None and mse < best:
                best, best_epoch, best_weights = mse, number, network.get_weights()
            if best < mark * (1.0 - _MIN_IMPROVEMENT):
                mark, mark_epoch = best, number
            curve.append(Epoch(train_mse, mse))
            if held_out:
                snapshots.best_is(best_epoch)
                if snapshots.wants(number):
                    snapshots.add(number, network.get_weights())
            training.on_epoch(curve[-1])
            if held_out and number - mark_epoch >= self._config.patience:
                break
        if held_out:
            network.set_weights(best_weights)
        self._best_epochs = best_epoch or self._config.epochs
        self.learned = snapshots.start(self._best_epochs) if held_out else self.start
        return Fit(tuple(curve), self._best_epochs)

    def continue_from_start(self, network: Any) -> None:
        """Sets the weights of a network to those that the fit starts from, if there are any.

        Args:
            network: See `run_epochs`.

        Raises:
            ValueError: They are of another number of users or items.
        """
        if self.start:
            network.set_weights(weights_of(self.start, len(network.get_weights())))

    def serve(self, module: ScoringModule, data: ReleaseData) -> None:
        """Creates the scorer of the fitted model.

        Args:
            module: The module in its served form.
            data: The data that it was fitted on.
        """
        self._fitted = FittedScorer(module, data)
