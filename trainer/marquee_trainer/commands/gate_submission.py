"""Submits a new release to the gate, and reports the verdict on the terminal and as metrics."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from marquee_core.errors import ArtifactError
from marquee_core.release.lease import Lease
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Decision, Verdict
from marquee_services import promotion
from marquee_services.promotion import EXIT_CODES, Promotion, promote
from marquee_trainer.commands.interrupt import set_outcome
from marquee_trainer.commands.progress import ProgressBar
from marquee_trainer.gate.drift import COUNTS
from marquee_trainer.gate.gate import judge
from marquee_trainer.publishing.release import Judge


def gate_for(
    store: ReleaseStore,
    require_approval: bool = False,
    lease: Lease | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Judge:
    """Returns the gate of a store, which judges a release before it is published there.

    Args:
        store: The store that the release will be published to.
        require_approval: Whether a person must approve every release.
        lease: The trainer lease, which must still be held afterwards; None without one.
        on_start: Called before the gate starts.
    """

    def judge_candidate(candidates: ReleaseStore, release_id: str) -> Verdict | None:
        on_start()
        verdict = None
        try:
            verdict = promotion.verdict_on(
                store,
                release_id,
                candidates=candidates,
                require_approval=require_approval,
                gate=judge,
            )
        except (ArtifactError, OSError) as error:
            # The training result must not be lost because, for example, production cannot be read.
            click.echo(f"the gate cannot judge the release yet: {error}", err=True)
        if lease is not None:
            lease.check()
        return verdict

    return judge_candidate


OTHER_RATINGS = (
    "if these ratings are meant to differ from those in production, train into a separate store: "
    "--store FOLDER"
)


def promote_through_gate(
    store: ReleaseStore, release: Manifest, require_approval: bool, metrics_file: str
) -> Promotion:
    """Promotes a new release if the gate agrees, and prints the verdict.

    Args:
        store: The store.
        release: The release; the verdict in its manifest is valid if production has not changed
            since.
        require_approval: Whether a person must approve every release.
        metrics_file: File to write the verdict to, for monitoring; "" for none.

    Raises:
        Exit: The release was not promoted; the exit code is 3 if the gate refused it, and 4 if it
            requires approval.
        OSError: The store or the file cannot be written to.
    """
    release_id = release.release_id
    with ProgressBar() as bar:
        bar.progress().on_step("promote", 0)
        done = promote(
            store, release_id, require_approval=require_approval, verdict=release.gate, gate=judge
        )
    if done.verdict is not None:
        click.echo("\n".join(done.verdict.lines()))
        if metrics_file:
            write_metrics(Path(metrics_file), done.verdict)
    if done.production is not None:
        set_outcome(f"Release {release_id} was published and promoted.")
        click.echo("promoted")
    else:
        is_refused = done.decision is Decision.REFUSE
        option = "--force" if is_refused else "--approve"
        reason = "refused by the gate" if is_refused else "waiting for approval"
        click.echo(f"not promoted: {reason}", err=True)
        click.echo(f"to promote it: marquee releases promote {release_id} {option}", err=True)
        checks = () if done.verdict is None else done.verdict.checks
        if any(c.name == COUNTS and c.decision is Decision.REFUSE for c in checks):
            click.echo(OTHER_RATINGS, err=True)
        raise click.exceptions.Exit(EXIT_CODES[done.decision])
    return done


def write_metrics(path: Path, verdict: Verdict) -> None:
    """Writes a verdict in Prometheus' text format; the file is replaced atomically.

    Raises:
        OSError: The file cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    decision = Gauge(
        "marquee_gate_decision",
        "1 for what the gate decided about the newest release.",
        ("decision",),
        registry=registry,
    )
    for each in Decision:
        decision.labels(each.value).set(each is verdict.decision)
    check = Gauge(
        "marquee_gate_check",
        "What a check of the gate says: 0 to promote, 1 to ask, 2 to refuse.",
        ("check",),
        registry=registry,
    )
    figure = Gauge(
        "marquee_gate_figure", "A figure of a check.", ("check", "figure"), registry=registry
    )
    for each_check in verdict.checks:
        check.labels(each_check.name).set(list(Decision).index(each_check.decision))
        for name, value in each_check.figures.items():
            figure.labels(each_check.name, name).set(value)
    judged = Gauge(
        "marquee_gate_judged_release_info",
        "The release that the gate judged last, and the one it was compared with.",
        ("release_id", "production_id"),
        registry=registry,
    )
    judged.labels(verdict.release_id, verdict.production_id).set(1)
    handle, name = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(generate_latest(registry))
    Path(name).chmod(0o644)
    Path(name).replace(path)
