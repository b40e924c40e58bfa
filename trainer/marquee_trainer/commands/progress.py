"""Progress and tables on the terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import NoReturn, Self

import click
from tqdm import tqdm

from marquee.cli.table import render
from marquee_trainer.models.model import Epoch
from marquee_trainer.studies.known_day import KnownDay
from marquee_trainer.training.evaluate import ENSEMBLE, Evaluation
from marquee_trainer.training.train import Progress

_COLUMNS = (
    ("train_mse", "train MSE"),
    ("test_mse", "test MSE"),
    ("test_rmse", "test RMSE"),
    ("test_mae", "test MAE"),
    ("ndcg@10", "NDCG@10"),
    ("recall@20", "Recall@20"),
    ("coverage@10", "coverage@10"),
)


class ProgressBar:
    """Shows the steps of training, a bar for each; without a terminal, a line for each."""

    def __init__(self) -> None:
        """Begins without a step."""
        self._quiet = not sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None

    def progress(self) -> Progress:
        """What training tells of its progress."""
        return Progress(self._step, self._epoch)

    def _step(self, name: str, epochs: int) -> None:
        self._end_step()
        if self._quiet:
            click.echo(f"  {name}", err=True)
            return
        unit = "epoch" if epochs else "step"
        self._bar = tqdm(total=epochs or 1, desc=f"{name:<20}", unit=unit, file=sys.stderr)

    def _epoch(self, epoch: Epoch) -> None:
        if self._bar is not None:
            shown = epoch.train_mse if epoch.validation_mse is None else epoch.validation_mse
            self._bar.set_postfix_str(f"MSE {shown:.4f}", refresh=False)
            self._bar.update()

    def _end_step(self) -> None:
        """Completes the bar of the present step, which may have ended early."""
        if self._bar is not None:
            self._bar.total = self._bar.n = max(1, self._bar.n)
            self._bar.refresh()
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_step()


def metrics_table(evaluation: Evaluation) -> str:
    """The metrics of all models, as a table."""
    rows = [
        [name, *(f"{metrics[key]:.4f}" if key in metrics else "" for key, _ in _COLUMNS)]
        for name, metrics in evaluation.metrics.items()
    ]
    return render(["model", *(title for _, title in _COLUMNS)], rows, "l" + "r" * len(_COLUMNS))


def known_day_table(found: KnownDay) -> str:
    """What predictions gain that know the day of the rating, as a table."""
    columns = [(key, title) for key, title in _COLUMNS if key in found.metrics[ENSEMBLE]]
    rows = [
        [f"{name}, day known", *(f"{row[key]:.4f}" for key, _ in columns)]
        for name, row in found.metrics.items()
    ]
    return render(["model", *(title for _, title in columns)], rows, "l" + "r" * len(columns))
