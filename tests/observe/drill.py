"""Causes faults in a running system, and measures how long their alerts take: `make drill`."""

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
from observe.faults import FAULTS, Fault, UnsupportedFaultError
from observe.monitoring import rules, shortened
from observe.production import Load, end_on_sigterm, running_production
from observe.prometheus import Prometheus, program
from termination import interrupt_on_sigterm

# Divisors of windows and waiting times: the second is for alerts that look at hours or days.
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
    """The outcome of a fault for one alert.

    Attributes:
        fault: Name of the fault.
        alert: An alert that must fire.
        fired: Seconds from the start of the fault until the alert fired; None if it did not.
        resolved: Seconds from the end of the fault until the alert resolved; None if it did not.
    """

    fault: str
    alert: str
    fired: float | None
    resolved: float | None

    def __str__(self) -> str:
        factor = _LONG_FACTOR if self.alert in _LONG else _FACTOR
        return (
            f"{self.fault:<60} {self.alert:<33} {factor:>4.0f} {_seconds(self.fired):>9} "
            f"{_seconds(self.resolved):>9}"
        )


def run_fault(fault: Fault, context: DrillContext) -> list[Outcome]:
    """Causes a fault, waits for its alerts, ends it, and waits until they are resolved.

    Returns:
        The outcome for each alert.

    Raises:
        UnsupportedFaultError: The fault cannot be caused on this machine.
    """
    # An alert that still fires because of an earlier fault would seem to fire immediately.
    _await(context, fault.alerts, time.monotonic(), firing=False)
    with fault.cause(context) as seen:
        begun = time.monotonic()
        if seen:
            click.echo(f"{fault.what}: {seen}")
        fired = _await(context, fault.alerts, begun, firing=True)
    ended = time.monotonic()
    resolved = _await(context, fault.alerts, ended, firing=False)
    return [Outcome(fault.what, name, fired.get(name), resolved.get(name)) for name in fault.alerts]


def _await(
    context: DrillContext, names: tuple[str, ...], begun: float, *, firing: bool
) -> dict[str, float]:
    """Waits until alerts fire, or until none fires; returns the seconds that each took."""
    seen: dict[str, float] = {}
    while len(seen) < len(names) and time.monotonic() - begun < _WAIT_S:
        now = _firing(context)
        for name in names:
            if (name in now) is firing:
                seen.setdefault(name, time.monotonic() - begun)
        time.sleep(_INTERVAL_S)
    return seen


def _firing(context: DrillContext) -> set[str]:
    """Returns the names of the firing alerts, each from the server with its divisor."""
    quick, long = (
        {alert.name for alert in server.alerts() if alert.state == "firing"}
        for server in context.servers
    )
    return (quick - _LONG) | (long & _LONG)


@contextmanager
def small_volume(folder: Path, mebibytes: int) -> Iterator[bool]:
    """Mounts a small file system on a folder; yields whether that is permitted."""
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
@click.option(
    "--only", multiple=True, default=("",), help="Part of a fault's name; may be repeated."
)
def run(only: tuple[str, ...]) -> None:
    """Causes each fault and prints how long its alerts took; fails if an alert did not fire."""
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
                f"{'fault':<60} {'alert':<33} {'div.':>4} {'fired':>9} {'resolved':>9}\n"
                "(windows and waiting times are divided by the number under `div.`)"
            )
            for fault in FAULTS:
                if not any(part in fault.what for part in only):
                    continue
                try:
                    found = run_fault(fault, context)
                except UnsupportedFaultError as error:
                    click.echo(f"{fault.what:<60} skipped: {error}")
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
    interrupt_on_sigterm()
    run()
