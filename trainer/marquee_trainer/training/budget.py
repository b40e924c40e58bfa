"""Keeps training within a time budget: leaves out models that do not fit, or shortens them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.costs import COSTS
from marquee_trainer.models.model import Model
from marquee_trainer.models.neural.tensorflow_model import TensorFlowModel

# The cost of the refits, in refits of the ratings of the first fit: one for the evaluation, and one
# on all ratings if the release serves them. Each has more ratings than the fit before it.
_EVALUATION_REFIT, _FINAL_REFIT = 1.1, 1.4
# The share of the time that is for loading, blending, evaluating and publishing.
_RESERVE = 0.2
# A model is shortened only if at least this share of its epochs fits; fewer are not worth it.
_MIN_EPOCH_SHARE = 0.3


class Budget:
    """Decides before each fit whether the model still fits into the time that is left.

    The cost of a model is estimated from the number of ratings. The time that the fits so far have
    taken corrects the estimates for the machine and its load.
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
            seconds: The time that the whole run may take.
            report: Called with a sentence for each model that is left out or shortened.
            clock: The current time, in seconds.
            refit: Whether the models are refitted on all ratings in the end.
            slowdown: How many times the estimated seconds this machine takes, as long as no fit was
                measured.
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
        """The models in the order in which they get the time: the most useful first.

        Models without a known cost come last.
        """
        ranks = {name: rank for rank, name in enumerate(COSTS)}
        return sorted(models, key=lambda model: ranks.get(model.name, len(ranks)))

    def admit(self, model: Model, matrix: RatingsMatrix) -> Model | None:
        """Decides whether a model fits into the time that is left.

        Args:
            model: The unfitted model.
            matrix: The ratings that it would be fitted on.

        Returns:
            The model, or the same with fewer epochs; None to leave it out.
        """
        if model.name not in COSTS:
            # Without an estimate it gets what is left, and the others have come before it.
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
            seconds: How long that took.
        """
        self._spent_s += seconds
        if model.name in COSTS:
            cost = COSTS[model.name].at(matrix.rating_count)
            self._estimated_s += cost.fit_s * self._shares.get(model.name, 1.0)
            self._refits_s += self._refits * seconds * cost.refit_s / cost.fit_s
        else:
            self._refits_s += self._refits * seconds

    def _left(self) -> float:
        """The seconds left for further models, after the refits of those that are fitted."""
        return self._end - self._clock() - self._refits_s

    def _speed(self) -> float:
        """Measured over estimated seconds of the fits so far."""
        return self._spent_s / self._estimated_s if self._estimated_s else self._slowdown

    def _leave_out(self, model: Model, needed: float) -> None:
        estimate = f"it needs about {needed:,.0f} s, and " if needed else ""
        self._report(
            f"budget: {model.name} is left out; {estimate}{max(0.0, self._left()):,.0f} s are left"
        )
