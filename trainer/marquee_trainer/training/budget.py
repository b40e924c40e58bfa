"""Keeps training within a time budget: leaves out models that do not fit, or shortens them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.costs import USEFULNESS, estimated_seconds
from marquee_trainer.models.model import Model
from marquee_trainer.models.neural.tensorflow_model import EpochConfig, TensorFlowModel

# Fits of the whole run per fit with validation ratings: itself, the refit for the evaluation, and
# the refit on all ratings, which has a quarter more ratings.
_FITS = 3.25
# The share of the budget that is for loading, blending, evaluating and publishing.
_RESERVE = 0.15
# A model is shortened only if at least this share of its epochs fits; fewer are not worth it.
_MIN_EPOCH_SHARE = 0.3

ModelT = TypeVar("ModelT", bound=Model)


class Budget:
    """Decides before each fit whether the model still fits into the time that is left.

    The cost of a model is estimated from the size of the data. The time that the fits so far have
    taken corrects the estimates for the machine and its load.
    """

    def __init__(
        self,
        seconds: float,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
            seconds: The time that the whole run may take.
            report: Called with a sentence for each model that is left out or shortened.
            clock: The current time, in seconds.
        """
        self._report = report
        self._clock = clock
        self._end = clock() + seconds * (1.0 - _RESERVE)
        self._estimated: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    def order(self, models: Sequence[ModelT]) -> list[ModelT]:
        """The models in the order in which they get the time: the most useful first."""
        return sorted(models, key=lambda model: USEFULNESS.index(model.name))

    def admit(self, model: Model, matrix: RatingsMatrix) -> Model | None:
        """Decides whether a model fits into the time that is left.

        Args:
            model: The unfitted model.
            matrix: The ratings that it would be fitted on.

        Returns:
            The model, or the same with fewer epochs; None to leave it out.
        """
        fit = estimated_seconds(model.name, matrix) * self._speed()
        needed, left = fit * _FITS, self._end - self._clock() - self._committed()
        if needed <= left:
            self._estimated[model.name] = fit / self._speed()
            return model
        share = max(0.0, left) / needed
        if isinstance(model, TensorFlowModel) and share >= _MIN_EPOCH_SHARE:
            epochs = max(1, int(model.max_epochs * share))
            self._report(
                f"budget: {model.name} is trained for at most {epochs} of {model.max_epochs} epochs"
            )
            self._estimated[model.name] = fit * share / self._speed()
            shortened: TensorFlowModel[EpochConfig] = model.with_epochs(epochs)
            return shortened
        self._report(
            f"budget: {model.name} is left out; it needs about {needed:.0f} s, and "
            f"{max(0.0, left):.0f} s are left"
        )
        return None

    def record(self, model: Model, seconds: float) -> None:
        """Records how long the fit of an admitted model took."""
        self._spent[model.name] = seconds

    def _speed(self) -> float:
        """Measured over estimated seconds of the fits so far; 1 before the first."""
        estimated = sum(self._estimated[name] for name in self._spent)
        return sum(self._spent.values()) / estimated if estimated else 1.0

    def _committed(self) -> float:
        """The time that the refits of the models fitted so far will take, in seconds."""
        return (_FITS - 1.0) * sum(self._spent.values())
