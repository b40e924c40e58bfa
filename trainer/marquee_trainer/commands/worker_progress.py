"""The progress of fits in other processes: a line for each that is done, and what is left."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from marquee_trainer.commands.estimate import Remaining, duration
from marquee_trainer.models.costs import COSTS
from marquee_trainer.models.model import Epoch, Model
from marquee_trainer.training.parallel_fits import StageFinished, StageStarted
from marquee_trainer.training.plan import FIT, TrainingPlan


class WorkerProgress:
    """Prints a line on stderr whenever a fit is done.

    The estimate of the rest compares the expected seconds of what is done with the time that has
    passed, which includes how many processes share the work.
    """

    def __init__(self, plan: TrainingPlan, models: Sequence[Model]) -> None:
        """Takes what will be fitted."""
        self._started = time.monotonic()
        ratings = len(plan.split.train)
        self._expected = {
            (model.name, stage): self._seconds(model.name, stage, ratings)
            for model in models
            for stage in plan.stages
        }
        self._done: set[tuple[str, str]] = set()

    def __call__(self, report: StageStarted | StageFinished | Epoch) -> None:
        """Notices a report."""
        if not isinstance(report, StageFinished):
            return
        fit = report.model, report.stage
        self._done.add(fit)
        elapsed = time.monotonic() - self._started
        place = f"{len(self._done)} of {len(self._expected)} fits"
        name = f"{report.stage} {report.model}"
        left = self._remaining(elapsed)
        click.echo(
            f"  {duration(elapsed)}  {name:<24} {report.seconds:7.1f} s  ({place}"
            f"{f', {left}' if left else ''})",
            err=True,
        )

    def _remaining(self, elapsed: float) -> Remaining | None:
        done = sum(self._expected[fit] for fit in self._done)
        left = sum(self._expected.values()) - done
        return Remaining(elapsed * left / done, False, True) if done and left else None

    @staticmethod
    def _seconds(model: str, stage: str, ratings: int) -> float:
        """The expected seconds of a fit on the machine whose speed is 1; 0 if unknown."""
        if model not in COSTS:
            return 0.0
        cost = COSTS[model].at(ratings)
        return cost.fit_s if stage == FIT else cost.refit_s
