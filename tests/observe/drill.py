"""Causes faults in a running system, and times the alerts that they are for: `make drill`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from deploy_check.processes import Step
from marquee import MarqueeError
from observe.drill_context import DrillContext
from observe.faults import FAULTS, CannotCauseError, Fault
from observe.monitoring import rules, shortened
from observe.production import Load, end_on_sigterm, running_production
from observe.prometheus import Prometheus, program

# What windows and waiting times are divided by, and for alerts about hours and days.
_FACTOR, _LONG_FACTOR = 20.0, 720.0
_LONG = frozenset(
    {
        "MarqueeErrorBudgetBurnsSlowly",
        "MarqueeLatencyBudgetBurnsSlowly",
        "MarqueeDegradedBudgetBurnsSlowly",
        "MarqueeCertificateExpires",
        "MarqueeReleaseOld",
        "MarqueeOnlyPopularItems",
        "MarqueeFeedbackEvicted",
    }
)
_WAIT_S = 300.0
_INTERVAL_S = 0.2
_FULL_MIB = 64


@dataclass(frozen=True)
class Outcome:
    """What came of a fault.

    Attributes:
        fault: What was done.
        alert: An alert that had to fire.
        fired: Seconds from the fault until it fired; None if it did not.
        over: Seconds from the end of the fault until it was over; None if it did not end.
    """

    fault: str
    alert: str
    fired: float | None
    over: float | None

    def __str__(self) -> str:
        factor = _LONG_FACTOR if self.alert in _LONG else _FACTOR
        return (
            f"{self.fault:<60} {self.alert:<33} {factor:>4.0f} {_seconds(self.fired):>9} "
            f"{_seconds(self.over):>9}"
        )


def run_fault(fault: Fault, context: DrillContext) -> list[Outcome]:
    """Causes a fault, waits for its alerts, ends it, and waits until they are over.

    Raises:
        CannotCauseError: This machine lacks what the fault needs.
    """
    # An alert that an earlier fault left behind would seem to fire at once.
    _await(context, fault.alerts, time.monotonic(), firing=False)
    with fault.cause(context) as seen:
        begun = time.monotonic()
        if seen:
            click.echo(f"{fault.what}: {seen}")
        fired = _await(context, fault.alerts, begun, firing=True)
    ended = time.monotonic()
    over = _await(context, fault.alerts, ended, firing=False)
    return [Outcome(fault.what, name, fired.get(name), over.get(name)) for name in fault.alerts]


def _await(
    context: DrillContext, names: tuple[str, ...], begun: float, *, firing: bool
) -> dict[str, float]:
    """The seconds after which each alert fired, or was over."""
    seen: dict[str, float] = {}
    while len(seen) < len(names) and time.monotonic() - begun < _WAIT_S:
        now = _firing(context)
        for name in names:
            if (name in now) is firing:
                seen.setdefault(name, time.monotonic() - begun)
        time.sleep(_INTERVAL_S)
    return seen


def _firing(context: DrillContext) -> set[str]:
    """The names of the alerts that fire, each by the server whose windows suit it."""
    quick, long = (
        {alert.name for alert in server.alerts() if alert.state == "firing"}
        for server in context.servers
    )
    return (quick - _LONG) | (long & _LONG)


@contextmanager
def small_volume(folder: Path, mebibytes: int) -> Iterator[bool]:
    """Mounts a file system of limited size on a folder; false if that is not allowed here."""
    options = f"size={mebibytes}m,mode=0777"
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@click.command()
@click.option("--only", multiple=True, default=("",), help="A part of faults' names; repeatable.")
def run(only: tuple[str, ...]) -> None:
    """Causes each fault, and prints how long its alerts took; fails if one did not fire."""
    end_on_sigterm()
    if program("prometheus") is None:
        raise click.ClickException("Prometheus is not available: see tests/fetch_prometheus.sh")
    outcomes: list[Outcome] = []

    def on_step(service: str, step: Step) -> None:
        click.echo(f"{service}: {step.what} ({step.seconds:.1f} s)", err=True)

    with tempfile.TemporaryDirectory(prefix="marquee-drill-") as made:
        folder = Path(made)
        feedback = folder / "feedback"
        feedback.mkdir()
        with (
            small_volume(feedback, _FULL_MIB) as can_fill,
            running_production(folder, on_step) as system,
            Prometheus(
                folder / "quick", system.metrics_ports, shortened(rules(), _FACTOR)
            ) as quick,
            Prometheus(
                folder / "long", system.metrics_ports, shortened(rules(), _LONG_FACTOR)
            ) as long,
            Load(system) as load,
        ):
            context = DrillContext(system, load, (quick, long), can_fill)
            click.echo(
                f"{'fault':<60} {'alert':<33} {'by':>4} {'fires':>9} {'over':>9}\n"
                "(windows and waiting times are divided by the number under `by`)"
            )
            for fault in FAULTS:
                if not any(part in fault.what for part in only):
                    continue
                try:
                    found = run_fault(fault, context)
                except CannotCauseError as error:
                    click.echo(f"{fault.what:<60} left out: {error}")
                    continue
                except (MarqueeError, OSError, RuntimeError) as error:
                    click.echo(f"{fault.what:<60} could not be caused: {error}")
                    found = [Outcome(fault.what, name, None, None) for name in fault.alerts]
                outcomes += found
                for outcome in found:
                    click.echo(str(outcome))
    if any(outcome.fired is None for outcome in outcomes):
        sys.exit(1)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    run()
