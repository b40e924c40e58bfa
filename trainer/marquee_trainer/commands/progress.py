"""Shows the progress of training on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from marquee_core.release.ensemble import GATEWAY_MODELS
from marquee_trainer.commands.estimate import Estimator, PlannedStep, duration
from marquee_trainer.models.costs import SCORING, estimated_cost
from marquee_trainer.models.model import Epoch
from marquee_trainer.training.progress import Progress

# Names of the steps; `{}` stands for the model that is fitted.
FIRST_FIT, REFIT, FINAL_FIT = "fit {}", "refit {}", "fit on all: {}"
ENSEMBLE, EVALUATE = "learn the ensemble", "evaluate"
_SCORING = "scoring"
_REFRESH_PER_SECOND = 4


class ProgressBar:
    """Shows the progress of training on stderr.

    On a terminal, one bar shows the progress of the whole run, with the elapsed and the estimated
    remaining time, and a second bar that of the current step with its epochs. Each finished step
    leaves one line. If stderr is not a terminal, one line per step is printed, to keep logs short.
    """

    def __init__(
        self,
        plan: Sequence[PlannedStep] = (),
        slowdown: float = 1.0,
        limit_s: float | None = None,
    ) -> None:
        """Creates the bars.

        Args:
            plan: All steps of the run, in order, for their number and the remaining time; empty if
                unknown.
            slowdown: How many times longer than expected this machine takes.
            limit_s: Seconds that the run may take; None without a limit.
        """
        self._estimator = Estimator(plan, slowdown=slowdown, limit_s=limit_s)
        self._is_terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._name = ""
        self._epochs = 0
        self._error = ""
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24),
            _Note(self._note, Column(no_wrap=True)),
            console=Console(file=sys.stderr),
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
            get_time=time.monotonic,
        )
        self._overall: TaskID | None = None
        self._step: TaskID | None = None

    def progress(self) -> Progress:
        """Returns the callbacks that drive the bars."""
        return Progress(self._start_step, self._count_epoch, self._show_users)

    def refresh(self) -> None:
        """Draws the bars now; otherwise they are drawn a few times per second."""
        self._bars.refresh()

    def _start_step(self, name: str, epochs: int) -> None:
        self._end_step()
        self._estimator.start(name)
        self._name, self._epochs, self._error = name, 0, ""
        if not self._is_terminal:
            left = self._estimator.remaining() if self._estimator.position else None
            click.echo(
                f"  {self._elapsed()}  {name}{self._place()}{f', {left}' if left else ''}", err=True
            )
            return
        self._step = self._bars.add_task(name, total=epochs or None, note="")
        self._show_overall()

    def _count_epoch(self, epoch: Epoch) -> None:
        self._epochs += 1
        mse = epoch.train_mse if epoch.validation_mse is None else epoch.validation_mse
        self._error = f"MSE {mse:.4f}"
        if self._step is not None:
            total = self._bars.tasks[-1].total
            most = f" of at most {total:.0f}" if total else ""
            self._bars.update(
                self._step, advance=1, note=f"epoch {self._epochs}{most}, {self._error}"
            )
            self._show_overall()

    def _show_users(self, done: int, total: int) -> None:
        if self._step is not None:
            note = f"{done:,} of {total:,} users"
            self._bars.update(self._step, completed=done, total=total, note=note)

    def _show_overall(self) -> None:
        if self._overall is None:
            return
        self._bars.update(
            self._overall,
            completed=max(0, self._estimator.position - 1),
            total=self._estimator.steps,
            description=f"step {self._estimator.position} of {self._estimator.steps}",
        )

    def _note(self, task: Task) -> str:
        """The text after a bar; times advance even while a step reports nothing."""
        if task.id != self._overall:
            return str(task.fields["note"])
        left = self._estimator.remaining() if self._estimator.position else None
        return f"{self._elapsed()} elapsed" + (f", {left}" if left else "")

    def _place(self) -> str:
        position = self._estimator.position
        return f" (step {position} of {self._estimator.steps})" if position else ""

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._started)

    def _end_step(self) -> None:
        """Ends the current step, which early stopping may have cut short."""
        seconds = self._estimator.finish()
        if self._step is None:
            return
        self._bars.remove_task(self._step)
        self._step = None
        epochs = f", {self._epochs} epochs, {self._error}" if self._epochs else ""
        self._bars.console.print(
            f"  {self._name:<24} {seconds:7.1f} s{epochs}", highlight=False, markup=False
        )

    def __enter__(self) -> Self:
        if self._is_terminal:
            if self._estimator.steps:
                self._overall = self._bars.add_task("", total=self._estimator.steps, note="")
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._end_step()
        if self._is_terminal:
            self._bars.stop()


class _Note(ProgressColumn):
    """A column of texts that are generated each time the bars are drawn."""

    def __init__(self, make: Callable[[Task], str], column: Column) -> None:
        super().__init__(column)
        self._make = make

    def render(self, task: Task) -> Text:
        """Renders the text of a bar."""
        return Text(self._make(task))


def training_plan(
    models: Sequence[str],
    validation_ratings: int,
    training_ratings: int,
    all_ratings: int = 0,
    refit_order: Sequence[str] = (),
) -> list[PlannedStep]:
    """Lists the steps of a training run.

    A model without a measured cost is expected to take as long as the median of the other models.

    Args:
        models: The names of the models, in the order in which they are fitted.
        validation_ratings: The number of training ratings held out for validation.
        training_ratings: The number of training ratings, including those for validation.
        all_ratings: The number of all ratings, if the models are refitted on them at the end;
            otherwise 0.
        refit_order: The names of the models in the order in which they are refitted; empty if it is
            the same.
    """

    def refits(step: str, ratings: int) -> list[PlannedStep]:
        return [
            PlannedStep(
                step.format(name),
                name,
                ratings,
                expected_s=estimated_cost(name).at(ratings).refit_s,
            )
            for name in refit_order or models
        ]

    first = training_ratings - validation_ratings
    plan = [
        PlannedStep(
            FIRST_FIT.format(name),
            name,
            first,
            is_search=True,
            expected_s=estimated_cost(name).at(first).fit_s,
        )
        for name in models
    ]
    # Both steps score every item for many users with every model and baseline.
    scorers = len(models) + len(GATEWAY_MODELS)
    learn_s = scorers * SCORING.at(first).fit_s
    evaluate_s = scorers * SCORING.at(training_ratings).refit_s
    plan.append(PlannedStep(ENSEMBLE, _SCORING, first, expected_s=learn_s))
    plan += refits(REFIT, training_ratings)
    plan.append(PlannedStep(EVALUATE, _SCORING, training_ratings, expected_s=evaluate_s))
    return plan + (refits(FINAL_FIT, all_ratings) if all_ratings else [])
