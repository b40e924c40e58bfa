"""Changes a running deployment under load, and counts failed calls: `make deploy-live`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from deploy_check.processes import ProcessError, Step, Workspace
from deploy_check.render import render_with
from deploy_check.secrets import Secrets
from deploy_check.system import any_user, await_full_answer, train
from deploy_live.callers import Callers, Counts
from deploy_live.changes import (
    Deployment,
    add_gateway,
    renew_certificates,
    replace_authority,
    restart_all,
    start,
)
from deploy_live.cluster import Cluster
from deploy_live.names import enter_namespace
from marquee import Client
from observe.production import end_on_sigterm
from termination import interrupt_on_sigterm

_TARGET = "dns:///marquee-gateway:50051"
_CHANGES: tuple[tuple[str, Callable[[Deployment], str]], ...] = (
    ("a third gateway is added", add_gateway),
    ("all pods are replaced", restart_all),
    ("all certificates are renewed", renew_certificates),
    ("the authority is replaced", replace_authority),
)
_HEAD = f"{'change':<31}  takes {'calls':>6} {'failed':>6} {'degraded':>8} {'slowest':>8}"
_FIRST_CALL_S = 60.0


def _row(what: str, counts: Counts | None, seconds: float, result: str) -> None:
    numbers = ""
    if counts is not None:
        slowest = f"{counts.slowest * 1000:.0f} ms"
        numbers = f"{counts.calls:>6} {counts.failed:>6} {counts.degraded:>8} {slowest:>8}"
    click.echo(f"{what:<31} {seconds:>4.0f} s {numbers:<31}  {result}")


def change_all(deployment: Deployment) -> Counts:
    """Makes all changes under load, prints a row for each, and returns the total counts."""
    total = Counts()
    with Callers(_TARGET, deployment.secrets.caller) as callers:
        for what, change in _CHANGES:
            begun = time.monotonic()
            result = change(deployment)
            counts = callers.take()
            _row(what, counts, time.monotonic() - begun, result)
            total.calls += counts.calls
            total.failures += counts.failures
            total.degraded += counts.degraded
    return total


@click.command()
@click.option(
    "--connection-age",
    default=10.0,
    show_default=True,
    help="Seconds after which servers close connections, instead of their default.",
)
@click.option("--inside", is_flag=True, hidden=True, help="Runs in a private mount namespace.")
def run(connection_age: float, inside: bool) -> None:
    """Changes a running deployment under load; fails if a call fails."""
    if not inside:
        try:
            enter_namespace("deploy_live", ["--inside", *sys.argv[1:]])
        except RuntimeError as error:
            raise click.ClickException(str(error)) from error
    end_on_sigterm()

    def on_step(_service: str, step: Step) -> None:
        click.echo(f"training: {step.what} ({step.seconds:.1f} s)", err=True)

    with tempfile.TemporaryDirectory(prefix="marquee-live-") as made:
        folder = Path(made)
        objects = render_with("staging", ("mtls",), folder / "rendered")
        workspace = Workspace(folder)
        train(objects, workspace, on_step)
        secrets = Secrets(objects, folder / "secrets")
        age = {"MARQUEE_SERVICE_MAX_CONNECTION_AGE": str(connection_age)}
        cluster = Cluster(objects, folder, workspace.volume("/store"), secrets, age)
        deployment = Deployment(cluster, secrets, connection_age)
        click.echo(f"servers close connections after {connection_age:g} s")
        click.echo(_HEAD)
        try:
            begun = time.monotonic()
            result = start(deployment)
            with Client(_TARGET, tls=secrets.caller, timeout=_FIRST_CALL_S) as client:
                await_full_answer(client, any_user(workspace))
            _row("the manifests' pods start", None, time.monotonic() - begun, result)
            total = change_all(deployment)
        except ProcessError as error:
            raise click.ClickException(str(error)) from error
        finally:
            cluster.close()
    for message, failures in total.failures.items():
        click.echo(f"{failures} failed: {message}")
    click.echo(f"{total.calls} calls, {total.failed} failed, {total.degraded} degraded")
    if total.failed or not total.calls:
        sys.exit(1)


if __name__ == "__main__":
    interrupt_on_sigterm()
    run()
