"""The commands `marquee experiments …`, which start, show, stop, promote and list experiments."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from marquee.cli.table import printable, render
from marquee_core.errors import ArtifactError
from marquee_core.experiments.arm_argument import parse_arm
from marquee_core.experiments.experiment import (
    CONTROL,
    LIKES,
    METRICS,
    Experiment,
    ExperimentError,
)
from marquee_core.experiments.outcome import Outcome, read_outcome
from marquee_core.experiments.sequential import Interval
from marquee_core.experiments.store import STOPPED, ExperimentStore
from marquee_core.feedback.events import LogUnavailable
from marquee_core.feedback.location import check_log_setting, log_url
from marquee_core.release.signing import KeyFileError
from marquee_core.release.store import ReleaseStore, StoreURLError
from marquee_services.commands.support import store_options
from marquee_services.server.settings import open_store

if TYPE_CHECKING:
    from marquee_core.feedback.log import EventLog

# The deviation from the expected number of users, in standard deviations, from which a sample ratio
# mismatch is reported.
_MISMATCH = 4.0

_feedback_option = click.option(
    "--feedback",
    default="",
    envvar="MARQUEE_FEEDBACK",
    show_envvar=True,
    help="Feedback log of the gateways: `sqlite` (a file next to the store), sqlite:///PATH or "
    "postgresql://…",
)


@dataclass(frozen=True)
class _Stores:
    """The release store and its experiments, as the commands use them."""

    url: str
    store: ReleaseStore
    experiments: ExperimentStore

    @contextmanager
    def log(self, feedback: str) -> Iterator[EventLog | None]:
        """Opens the feedback log; None if none was given."""
        if not feedback:
            yield None
            return
        from marquee_core.feedback.log import EventLog

        check_log_setting(feedback, self.url)
        with EventLog(log_url(feedback, self.url)) as log:
            yield log


@click.group()
@store_options("a promotion")
@click.pass_context
def experiments(context: click.Context, store: str, trusted_keys: str, signing_key: str) -> None:
    """Compare releases or blends on real users: start, show, stop and promote."""
    with _errors_as_one_line():
        releases = open_store(store, trusted_keys, signing_key)
        context.obj = _Stores(store, releases, ExperimentStore(releases))


@experiments.command()
@click.argument("name")
@click.option(
    "--arm",
    "arms",
    multiple=True,
    required=True,
    metavar="ARM",
    help="NAME=RELEASE:PERCENT, or NAME=RELEASE@MODEL=WEIGHT,…:PERCENT for other ranking weights. "
    f"Repeatable; one arm is named {CONTROL}, and RELEASE may be `production`.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default=LIKES,
    show_default=True,
    help="What the verdict compares: likes per list, clicks per list, or mean stars.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0.0, 0.5, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability of a wrong verdict if the arms do not differ.",
)
@_feedback_option
@click.pass_obj
def start(
    stores: _Stores, name: str, arms: tuple[str, ...], metric: str, alpha: float, feedback: str
) -> None:
    """Start an experiment; all gateways and backends detect it automatically.

    \b
    Examples:
      marquee experiments start new-data --arm control=production:90 --arm candidate=RELEASE:10
      marquee experiments start simple --arm control=RELEASE:50 --arm popular=RELEASE@popularity:50
    """  # noqa: D301 - \b keeps click from rewrapping the lines
    with _errors_as_one_line():
        production = stores.store.production()
        parsed = tuple(parse_arm(arm, production.release_id if production else "") for arm in arms)
        with stores.log(feedback) as log:
            position = 0 if log is None else log.position()
        stores.experiments.create(name, parsed, metric, alpha, position)
    click.echo(f"experiment {name} is running")


@experiments.command("list")
@click.pass_obj
def list_experiments(stores: _Stores) -> None:
    """List experiments, the most recently started first."""
    with _errors_as_one_line():
        found = stores.experiments.all()
    rows = [
        [
            experiment.name,
            experiment.outcome or "running",
            experiment.started_at,
            experiment.ended_at,
            ", ".join(f"{arm.name} {arm.percent:g} %" for arm in experiment.arms),
        ]
        for experiment in found
    ]
    headers = ["experiment", "state", "started", "ended", "arms"]
    click.echo(render(headers, rows, "lllll", droppable=("ended", "started")))


@experiments.command()
@click.argument("name", required=False, default="")
@_feedback_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(stores: _Stores, name: str, feedback: str, as_json: bool) -> None:
    """Show the outcome of an experiment so far; by default, of the current or most recent one.

    You may look as often as you like and stop once there is a verdict: the intervals are valid at
    all times simultaneously.
    """
    with _errors_as_one_line(), stores.log(feedback) as log:
        experiment = stores.experiments.find(name)
        outcome = None
        if log is not None:
            outcome = read_outcome(experiment, log)
    if as_json:
        click.echo(json.dumps(_as_json(experiment, outcome), indent=2))
        return
    click.echo(_head(experiment))
    if outcome is None:
        click.echo(_arms(experiment))
        click.echo("\nGive the gateways' feedback log with --feedback to see the outcome.")
        return
    click.echo(_table(experiment, outcome))
    click.echo(f"\n{outcome.verdict}")
    for note in _notes(experiment, outcome):
        click.echo(f"note: {note}")


@experiments.command()
@click.argument("name", required=False, default="")
@click.pass_obj
def stop(stores: _Stores, name: str) -> None:
    """Stop an experiment, so that the release in production answers all users again."""
    with _errors_as_one_line():
        ended = stores.experiments.end(name or stores.experiments.find().name, STOPPED)
    click.echo(f"experiment {ended.name} is stopped")


@experiments.command()
@click.argument("arm")
@click.option(
    "--by",
    default="",
    envvar="MARQUEE_BY",
    show_envvar=True,
    help="Who promotes it, for the audit; by default, the user and host of this process.",
)
@click.option("--force", is_flag=True, help="Bypass the gate; the audit records it.")
@click.option("--approve", is_flag=True, help="Promote it even if the gate asks for approval.")
@click.option(
    "--require-approval",
    is_flag=True,
    envvar="MARQUEE_REQUIRE_APPROVAL",
    show_envvar=True,
    help="Make the gate ask for approval of every release.",
)
@click.option(
    "--signing-key",
    default="",
    envvar="MARQUEE_SIGNING_KEY",
    show_envvar=True,
    help="PEM file of the Ed25519 private key that signs the new release of an arm with its own "
    "ranking weights.",
)
@click.pass_obj
def promote(
    stores: _Stores,
    arm: str,
    by: str,
    force: bool,
    approve: bool,
    require_approval: bool,
    signing_key: str,
) -> None:
    """Put an arm's release in production, and end the experiment.

    For an arm with its own ranking weights, a new release with these weights is published. Its
    ranking has not been evaluated on held-out ratings, so the gate asks for --approve.

    The gate judges the release as for `marquee releases promote`, with the same exit codes. If the
    release is not promoted, nothing is published and the experiment continues.
    """
    from marquee_core.release.signing import Signer
    from marquee_core.release.verdict import Decision
    from marquee_services import promotion
    from marquee_services.promotion import EXIT_CODES

    with _errors_as_one_line():
        experiment = stores.experiments.find()
        if not experiment.is_running:
            raise ExperimentError("no experiment is running")
        chosen = experiment.arm(arm)
        if signing_key:
            stores.store.signer = Signer.load(Path(signing_key))
        options: dict[str, Any] = {
            "why": f"arm {arm} of experiment {experiment.name}",
            "by": by,
            "force": force,
            "approve": approve,
            "require_approval": require_approval,
        }
        if chosen.ranking_weights:
            done = promotion.promote_with_ranking(
                stores.store, chosen.release_id, chosen.ranking_weights, **options
            )
        else:
            done = promotion.promote(stores.store, chosen.release_id, **options)
        if done.production is not None:
            stores.experiments.end(experiment.name, f"promoted {arm}")
    if done.verdict is not None:
        click.echo("\n".join(done.verdict.lines()))
    if done.production is None:
        flag = "--force" if done.decision is Decision.REFUSE else "--approve"
        click.echo(f"{chosen.description} was not promoted; {flag} promotes it", err=True)
        sys.exit(EXIT_CODES[done.decision])
    release_id = done.production.release_id
    click.echo(f"{release_id} is in production; experiment {experiment.name} has ended")


def _head(experiment: Experiment) -> str:
    state = "running" if experiment.is_running else f"{experiment.outcome} {experiment.ended_at}"
    return (
        f"experiment {experiment.name}, started {experiment.started_at}, {state}; compared by "
        f"{experiment.metric}, alpha {experiment.alpha:g}\n"
    )


def _arms(experiment: Experiment) -> str:
    rows = [[arm.name, f"{arm.percent:g} %", arm.description] for arm in experiment.arms]
    return render(["arm", "share", "release"], rows, "lrl")


def _table(experiment: Experiment, outcome: Outcome) -> str:
    """Returns a row for each arm, with the intervals of each metric and of its difference."""
    rows = []
    for arm, found in zip(experiment.arms, outcome.arms, strict=True):
        difference = found.metrics[experiment.metric].difference
        rows.append(
            [
                arm.name,
                arm.description,
                f"{arm.percent:g} %",
                f"{found.users:,}",
                f"{found.lists:,}",
                f"{found.ratings:,}",
                _interval(found.metrics["likes"].mean),
                _interval(found.metrics["clicks"].mean),
                _interval(found.metrics["stars"].mean),
                "" if difference is None else _interval(difference, sign="+"),
            ]
        )
    headers = ["arm", "release", "share", "users", "lists", "ratings"]
    headers += ["likes per list", "clicks per list", "mean stars"]
    headers += [f"difference in {experiment.metric}"]
    return render(
        headers, rows, "llrrrrrrrr", droppable=("release", "ratings", "share", "clicks per list")
    )


def _interval(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.estimate):
        return "none"
    estimate = f"{interval.estimate:{sign}.3f}"
    if math.isinf(interval.low):
        return f"{estimate} (too few)"
    return f"{estimate} ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"


def _notes(experiment: Experiment, outcome: Outcome) -> Iterator[str]:
    users = sum(found.users for found in outcome.arms)
    for arm, found in zip(experiment.arms, outcome.arms, strict=True):
        share = arm.percent / 100.0
        expected, deviation = users * share, math.sqrt(users * share * (1.0 - share))
        if abs(found.users - expected) > _MISMATCH * deviation:
            yield (
                f"{arm.name} has {found.users:,} users, but about {expected:,.0f} were expected: "
                "its lists were lost or answered by another arm, so do not trust the comparison"
            )
    if outcome.lost_counters:
        yield (
            f"{outcome.lost_counters} gateway process(es) ended without writing the last counts, "
            "so the lists of their last seconds are missing"
        )
    if outcome.uncounted_lists:
        yield f"{outcome.uncounted_lists:,} lists are known only from their feedback"
    if outcome.foreign_events:
        yield f"{outcome.foreign_events:,} events named another user's list and do not count"


def _as_json(experiment: Experiment, outcome: Outcome | None) -> dict[str, Any]:
    shown = experiment.to_json()
    # With the secret, anyone could forge lists.
    del shown["secret"]
    found = None if outcome is None else _finite(asdict(outcome))
    return {"experiment": shown, "outcome": found}


def _finite(value: Any) -> Any:
    """Returns the same values, with null in place of numbers that JSON does not support."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _errors_as_one_line() -> Iterator[None]:
    """Reports expected errors in one line; other errors keep their tracebacks."""
    try:
        yield
    except (
        ArtifactError,
        ExperimentError,
        KeyFileError,
        LogUnavailable,
        StoreURLError,
        OSError,
    ) as error:
        raise click.ClickException(printable(str(error))) from error
    except ValueError as error:
        raise click.UsageError(printable(str(error))) from error
