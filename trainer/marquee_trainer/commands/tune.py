"""`marquee tune`: searches hyperparameters and writes the best to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tqdm import tqdm

from marquee_trainer.commands.loading import load_and_split
from marquee_trainer.commands.settings import TuneSettings
from marquee_trainer.models.configurations import packaged, read_parameters
from marquee_trainer.tuning.search import Trial, tune, write_configurations
from marquee_trainer.tuning.spaces import SPACES


def tune_models(settings: TuneSettings) -> None:
    """Searches hyperparameters, prints each trial, and writes the best of each model.

    The search starts from the output file if it exists, else from the file in the package that was
    tuned on data of about the same size, else from the defaults.

    Raises:
        RatingsError: The ratings cannot be read.
        ConfigurationError: A model is unknown, or the file to start from is damaged.
        OSError: The output file cannot be written.
    """
    dataset, split = load_and_split(settings)
    out = Path(settings.out)
    start_file = out if out.exists() else packaged(len(split.train))
    start = read_parameters(start_file) if start_file else {}
    names = [name.strip() for name in settings.models.split(",") if name.strip()] or list(SPACES)
    with tqdm(disable=not sys.stderr.isatty(), unit="trial", leave=False) as bar:

        def on_trial(name: str, trial: Trial) -> None:
            bar.update()
            parameters = ", ".join(f"{key} {value:g}" for key, value in trial.parameters.items())
            click.echo(f"{name} {trial.loss:.4f} in {trial.seconds:.1f} s: {parameters}")

        searches = tune(dataset, split, names, settings.minutes, settings.seed, start, on_trial)
    write_configurations(out, dataset, split, searches, settings.seed)
    for search in searches:
        first, best = search.trials[0].loss, search.best.loss
        click.echo(f"{search.model}: {first:.4f} → {best:.4f} in {len(search.trials)} trials")
