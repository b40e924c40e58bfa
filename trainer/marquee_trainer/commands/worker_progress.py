"""Reports the progress of fits in worker processes: one line per finished fit, with an estimate."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from marquee_trainer.commands.estimate import Remaining, duration
from marquee_trainer.models.costs import estimated_cost
from marquee_trainer.models.model import Epoch, Model
from marquee_trainer.training.parallel_fits import StageFinished, StageStarted
from marquee_trainer.training.plan import FIT, TrainingPlan


class WorkerProgress:
    """Prints a line on stderr whenever a fit finishes.

    The remaining time is estimated from the elapsed time and the expected seconds of the finished
    fits, so it accounts for the number of processes that share the work.
    """

    def __init__(self, plan: TrainingPlan, models: Sequence[Model]) -> None:
        """Starts the clock, and looks up the expected time of every fit."""
        self._started = time.monotonic()
        ratings = len(plan.split.train)
        self._expected = {
            (model.name, stage): self._seconds(model.name, stage, ratings)
            for model in models
            for stage in plan.stages
        }
        self._done: set[tuple[str, str]] = set()

    def __call__(self, report: StageStarted | StageFinished | Epoch) -> None:
        """Handles a report of a worker; only finished fits are printed."""
        if not isinstance(report, StageFinished):
            return
        fit = report.model, report.stage
        self._done.add(fit)
        elapsed = time.monotonic() - self._started
        position = f"{len(self._done)} of {len(self._expected)} fits"
        name = f"{report.stage} {report.model}"
        left = self._remaining(elapsed)
        click.echo(
            f"  {duration(elapsed)}  {name:<24} {report.seconds:7.1f} s  ({position}"
            f"{f', {left}' if left else ''})",
            err=True,
        )

    def _remaining(self, elapsed: float) -> Remaining | None:
        done = sum(self._expected[fit] for fit in self._done)
        left = sum(self._expected.values()) - done
        return Remaining(elapsed * left / done, False, True) if done and left else None

    @staticmethod
    def _seconds(model: str, stage: str, ratings: int) -> float:
        """The expected seconds of a fit on the reference machine."""
        cost = estimated_cost(model).at(ratings)
        return cost.fit_s if stage == FIT else cost.refit_s
