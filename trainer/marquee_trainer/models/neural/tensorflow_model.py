"""What the models share that are trained by epochs and served from a SavedModel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np

from marquee_core.scorers.saved_model import SavedModelScorer
from marquee_core.scorers.scorer import ReleaseData
from marquee_trainer.models.model import Epoch, Fit, Model, Training
from marquee_trainer.models.neural.scoring_module import FittedScorer, ScoringModule

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    class EpochConfig(DataclassInstance, Protocol):
        """A configuration of training by epochs."""

        @property
        def epochs(self) -> int:
            """At most so many."""

        @property
        def patience(self) -> int:
            """Epochs without a better validation error before training ends."""


# What counts as a better validation error, as a share of it: where the learning rate decays, there
# is always a little to gain.
_LEAST_GAIN = 1e-4

ConfigT = TypeVar("ConfigT", bound="EpochConfig")


class TensorFlowModel(Model, Generic[ConfigT]):
    """A model that is trained by epochs and served from a SavedModel.

    Attributes:
        default: The configuration when none is given.
    """

    backend = "inference"
    default: ClassVar[Any]

    def __init__(self, config: ConfigT | None = None) -> None:
        """Takes the configuration; None for the default."""
        self._config: ConfigT = config or self.default
        self._fitted: FittedScorer | None = None
        self._scorer: SavedModelScorer | None = None

    def with_epochs(self, epochs: int) -> Self:
        """As `Model.with_epochs`."""
        return type(self)(replace(self._config, epochs=epochs))

    @property
    def max_epochs(self) -> int:
        """As `Model.max_epochs`."""
        return self._config.epochs

    @property
    def scorer(self) -> SavedModelScorer:
        """As `Model.scorer`."""
        if self._scorer is None:
            raise RuntimeError(f"{self.name} is not fitted")
        return self._scorer

    def save(self, folder: Path) -> None:
        """As `Model.save`.

        Raises:
            RuntimeError: The model is not fitted, or was itself loaded.
        """
        if self._fitted is None:
            raise RuntimeError(f"{self.name} was not fitted here")
        self._fitted.save(folder)

    @classmethod
    def load(cls, folder: Path, data: ReleaseData) -> Self:
        """As `Model.load`; what is loaded scores, and is not trained further."""
        model = cls()
        model._scorer = SavedModelScorer.load(folder, data)
        return model

    @property
    def parameters(self) -> dict[str, object]:
        """As `Model.parameters`."""
        return asdict(self._config)

    def run_epochs(
        self,
        network: Any,
        training: Training,
        epoch: Callable[[], float],
        validate: Callable[[], float],
    ) -> Fit:
        """Trains; with validation data until it no longer helps, and back to the best epoch.

        Args:
            network: A Keras model.
            training: What it is trained on.
            epoch: Passes over the ratings once; answers the mean squared error on the way.
            validate: Answers the mean squared error of the validation ratings.
        """
        held_out = training.validation is not None
        curve: list[Epoch] = []
        best, best_epoch, kept = np.inf, 0, network.get_weights()
        mark, mark_epoch = np.inf, 0
        for number in range(1, self._config.epochs + 1):
            train_mse = epoch()
            mse = validate() if held_out else None
            if mse is not None and mse < best:
                best, best_epoch, kept = mse, number, network.get_weights()
            if best < mark * (1.0 - _LEAST_GAIN):
                mark, mark_epoch = best, number
            curve.append(Epoch(train_mse, mse))
            training.on_epoch(curve[-1])
            if held_out and number - mark_epoch >= self._config.patience:
                break
        if held_out:
            network.set_weights(kept)
        return Fit(tuple(curve), best_epoch or self._config.epochs)

    def serve(self, module: ScoringModule, data: ReleaseData) -> None:
        """Scores from now on with a module."""
        self._fitted = FittedScorer(module, data)
        self._scorer = self._fitted.scorer
