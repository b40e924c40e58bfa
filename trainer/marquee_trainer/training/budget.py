"""Keeps training within a time budget, by skipping models or training them for fewer epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.costs import COSTS
from marquee_trainer.models.model import Model
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel

# The costs of the refit for the evaluation and of the final refit on all ratings, relative to a
# refit on the ratings of the first fit. Both exceed 1, because each refit has more ratings than the
# fit before.
_EVALUATION_REFIT, _FINAL_REFIT = 1.1, 1.4
# The share of the time that is reserved for loading, blending, evaluating and publishing.
_RESERVE = 0.2
# A model is skipped if less than this share of its epochs would fit.
_MIN_EPOCH_SHARE = 0.3


class Budget:
    """Decides before each fit whether there is enough time left for the model.

    The cost of a model is estimated from the number of ratings, and corrected by the measured times
    of the fits so far, which reflect the machine and its load.
    """

    def __init__(
        self,
        seconds: float,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        refit: bool = True,
        slowdown: float = 1.0,
    ) -> None:
        """Starts the clock.

        Args:
            seconds: The time limit of the whole run.
            report: Called with a sentence for each model that is skipped or trained for fewer
                epochs.
            clock: Returns the current time, in seconds.
            refit: Whether the models are refitted on all ratings at the end.
            slowdown: How many times longer than estimated this machine takes, used until a fit has
                been measured.
        """
        self._refits = _EVALUATION_REFIT + (_FINAL_REFIT if refit else 0.0)
        self._report = report
        self._clock = clock
        self._slowdown = slowdown
        self._end = clock() + seconds * (1.0 - _RESERVE)
        self._estimated_s = 0.0
        self._spent_s = 0.0
        self._refits_s = 0.0
        # By model, the share of its epochs that it is trained for.
        self._shares: dict[str, float] = {}

    def order(self, models: Sequence[Model]) -> list[Model]:
        """Orders models by their claim on the time: the most useful first.

        Models of unknown cost come last.
        """
        ranks = {name: rank for rank, name in enumerate(COSTS)}
        return sorted(models, key=lambda model: ranks.get(model.name, len(ranks)))

    def admit(self, model: Model, matrix: RatingsMatrix) -> Model | None:
        """Decides whether there is enough time left for a model.

        Args:
            model: The unfitted model.
            matrix: The ratings that it would be fitted on.

        Returns:
            The model, or the same model with fewer epochs; None to skip it.
        """
        if model.name not in COSTS:
            # Without an estimate, the model gets the remaining time; all others come before it.
            if self._left() > 0:
                return model
            self._leave_out(model, 0.0)
            return None
        cost = COSTS[model.name].at(matrix.rating_count)
        needed = (cost.fit_s + self._refits * cost.refit_s) * self._speed()
        left = self._left()
        if needed <= left:
            return model
        share = left / needed
        if not isinstance(model, TensorFlowModel) or share < _MIN_EPOCH_SHARE:
            self._leave_out(model, needed)
            return None
        epochs = max(1, int(model.max_epochs * share))
        self._report(
            f"budget: {model.name} is trained for at most {epochs} of {model.max_epochs} epochs"
        )
        self._shares[model.name] = share
        shortened: Model = model.with_epochs(epochs)
        return shortened

    def record(self, model: Model, matrix: RatingsMatrix, seconds: float) -> None:
        """Records how long the fit of an admitted model took.

        Args:
            model: The fitted model.
            matrix: The ratings that it was fitted on.
            seconds: The duration of the fit, in seconds.
        """
        self._spent_s += seconds
        if model.name in COSTS:
            cost = COSTS[model.name].at(matrix.rating_count)
            self._estimated_s += cost.fit_s * self._shares.get(model.name, 1.0)
            self._refits_s += self._refits * seconds * cost.refit_s / cost.fit_s
        else:
            self._refits_s += self._refits * seconds

    def _left(self) -> float:
        """The seconds left for further models, after the refits of those already fitted."""
        return self._end - self._clock() - self._refits_s

    def _speed(self) -> float:
        """The ratio of measured to estimated seconds of the fits so far."""
        return self._spent_s / self._estimated_s if self._estimated_s else self._slowdown

    def _leave_out(self, model: Model, needed: float) -> None:
        estimate = f"it needs about {needed:,.0f} s, and " if needed else ""
        self._report(
            f"budget: {model.name} is left out; {estimate}{max(0.0, self._left()):,.0f} s are left"
        )
