"""Progress bars on the terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import NoReturn, Self

import click
from tqdm import tqdm

from marquee_trainer.models.model import Epoch
from marquee_trainer.training.progress import Progress


class ProgressBar:
    """Shows a progress bar for each step of training.

    If stderr is not a terminal, it prints one line for each step instead, to keep logs short.
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar: tqdm[NoReturn] | None = None

    def progress(self) -> Progress:
        """The callbacks that drive the bars."""
        return Progress(self._start_step, self._count_epoch)

    def _start_step(self, name: str, epochs: int) -> None:
        self._end_step()
        if not self._is_terminal:
            click.echo(f"  {name}", err=True)
            return
        unit = "epoch" if epochs else "step"
        self._bar = tqdm(total=epochs or 1, desc=f"{name:<20}", unit=unit, file=sys.stderr)

    def _count_epoch(self, epoch: Epoch) -> None:
        if self._bar is not None:
            mse = epoch.train_mse if epoch.validation_mse is None else epoch.validation_mse
            self._bar.set_postfix_str(f"MSE {mse:.4f}", refresh=False)
            self._bar.update()

    def _end_step(self) -> None:
        """Completes the current bar, also when early stopping ended the step."""
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
