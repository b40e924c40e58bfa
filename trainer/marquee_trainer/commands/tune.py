"""`marquee tune`: searches hyperparameters and writes the best ones to a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from marquee_trainer.commands.loading import load_and_split
from marquee_trainer.commands.settings import TuneSettings
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.models.configurations import packaged_configuration, read_parameters
from marquee_trainer.models.model import can_learn_from
from marquee_trainer.models.registry import MODELS_BY_NAME
from marquee_trainer.tuning.search import tune
from marquee_trainer.tuning.spaces import SPACES
from marquee_trainer.tuning.trials import Search
from marquee_trainer.tuning.tuned_file import TunedFile

# The file of trials next to the output file has the same stem and this suffix.
TRIALS_SUFFIX = ".trials.jsonl"


def tune_models(settings: TuneSettings) -> None:
    """Searches hyperparameters, prints each trial, and writes the best ones of each model.

    The search starts from the output file if it exists, otherwise from the file in the package that
    was tuned on data of the most similar size. The output file is written after each trial. All
    trials are saved in a file next to it, from which a later run continues.

    Raises:
        RatingsError: The ratings cannot be read.
        ConfigurationError: A model is unknown, or the file to start from is damaged.
        OSError: The output file or the file of trials cannot be written.
    """
    dataset, split = load_and_split(settings)
    dataset = dataset.of_modelled_items()
    out = Path(settings.out)
    start = read_parameters(out if out.exists() else packaged_configuration(len(split.train)).path)
    names = [name.strip() for name in settings.models.split(",") if name.strip()] or list(SPACES)
    names = [
        name
        for name in names
        # An unknown name is reported by the search.
        if name not in MODELS_BY_NAME
        or can_learn_from(MODELS_BY_NAME[name].output, dataset.feedback)
    ]
    if not names:
        raise RatingsError(f"{dataset.source}: only rankers learn from implicit feedback")
    file = TunedFile(out, dataset, split, settings.seed)
    searches: dict[str, Search] = {}
    with _Status(len(names), settings.minutes) as status:

        def on_trial(search: Search) -> None:
            searches[search.model] = search
            file.write(list(searches.values()))
            position = list(searches).index(search.model) + 1
            status.update(_line(search), search, position)

        try:
            found = tune(
                dataset,
                split,
                names,
                settings.minutes,
                settings.seed,
                start,
                on_trial,
                max_trials=settings.max_trials,
                ray=settings.ray,
                storage=out.with_name(out.stem + TRIALS_SUFFIX),
            )
        finally:
            # Runs after Ctrl-C too: the best trials so far are in the file.
            status.stop()
            _summarise(list(searches.values()))
    # Models with earlier trials but no time for new ones were not reported above.
    file.write(found)
    click.echo(f"wrote {out}")


class _Status:
    """Prints one line per trial and, if stderr is a terminal, a status line below them."""

    def __init__(self, models: int, minutes: float) -> None:
        """Creates the status line.

        Args:
            models: The number of models to tune.
            minutes: The time for all of them.
        """
        self._models = models
        self._console = Console(stderr=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn(f"of {timedelta(minutes=round(minutes, 2))}"),
        )
        # Redirected stdout must not be written to stderr.
        self._progress = Progress(
            *columns, console=self._console, transient=True, redirect_stdout=False
        )
        self._task = self._progress.add_task("first trial", total=None)

    def update(self, line: str, search: Search, position: int) -> None:
        """Prints the line of a trial and updates the status line.

        Args:
            line: The line.
            search: The search that the trial belongs to.
            position: The position of its model among all models, counted from 1.
        """
        if sys.stdout.isatty() and self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line)
        completed = [trial for trial in search.trials if not trial.pruned]
        best = f", best {search.best.loss:.4f}" if completed else ""
        self._progress.update(
            self._task,
            description=f"{search.model} ({position} of {self._models}): "
            f"{len(search.trials)} trials{best};",
        )

    def stop(self) -> None:
        """Removes the status line."""
        self._progress.stop()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _line(search: Search) -> str:
    trial = search.trials[-1]
    parameters = ", ".join(f"{key} {value:g}" for key, value in trial.parameters.items())
    best = "pruned" if trial.pruned else "best so far" if search.best is trial else ""
    mark = f" ({best})" if best else ""
    return f"{search.model} {trial.loss:.4f}{mark} in {trial.seconds:.1f} s: {parameters}"


def _summarise(searches: Sequence[Search]) -> None:
    """Prints the first and the best loss of each model."""
    for search in searches:
        trials = search.trials
        if all(trial.pruned for trial in trials):
            continue
        pruned = sum(trial.pruned for trial in trials)
        click.echo(
            f"{search.model}: {trials[0].loss:.4f} → {search.best.loss:.4f} in "
            f"{len(trials)} trials"
            + (f", {pruned} of them pruned" if pruned else "")
            + (f"; {search.lost} more were lost with their workers" if search.lost else "")
        )
