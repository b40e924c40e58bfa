"""Checks ratings before training, and reports the results."""

from __future__ import annotations

import click

from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Decision
from marquee_services.promotion import EXIT_CODES
from marquee_trainer.commands.gate_submission import OTHER_RATINGS
from marquee_trainer.commands.settings import TrainSettings
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.gate.drift import COUNTS
from marquee_trainer.gate.inputs import InputLimits, input_checks, summary_of_production


def check_inputs(settings: TrainSettings, store: ReleaseStore, dataset: RatingsDataset) -> None:
    """Checks ratings, and prints a line for each check.

    A check that is merely unusual does not stop training; the gate judges the release itself.

    Args:
        settings: The thresholds, and whether a failed check stops the command.
        store: The store of the release to compare the ratings with.
        dataset: The ratings.

    Raises:
        Exit: A check failed; the exit code is that of a refused release.
        OSError: The store cannot be read.
    """
    limits = InputLimits(
        max_repeats=settings.max_repeats,
        max_unknown=settings.max_unknown_items,
        max_drop=settings.max_drop,
    )
    checks = list(input_checks(dataset, limits, summary_of_production(store)))
    width = max(len(check.name) for check in checks)
    words = {Decision.PROMOTE: "ok", Decision.ASK: "odd", Decision.REFUSE: "failed"}
    for check in checks:
        click.echo(f"  {words[check.decision]:<6}  {check.name:<{width}}  {check.text}")
    refused = {check.name for check in checks if check.decision is Decision.REFUSE}
    if refused:
        if settings.check_input:
            click.echo("nothing was trained: the ratings failed a check; ", nl=False, err=True)
            click.echo("--no-check-input trains on them anyway", err=True)
            if COUNTS in refused:
                click.echo(OTHER_RATINGS, err=True)
            raise click.exceptions.Exit(EXIT_CODES[Decision.REFUSE])
        click.echo("the ratings failed a check, and are used anyway", err=True)
