"""Runs the system under light load and evaluates all queries: `make observe`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from deploy_check.processes import Step
from locations import PROJECT
from observe.draw import draw_dashboards
from observe.monitoring import alert_rules, panels, rules, selectors
from observe.production import Load, damaged_release, end_on_sigterm, running_production
from observe.prometheus import Prometheus, program
from termination import interrupt_on_sigterm

_RATE_INTERVAL = "15s"
_WAIT_S = 120.0
_INTERVAL_S = 1.0


def queries_without_data(prometheus: Prometheus, wait: float = _WAIT_S) -> list[str]:
    """Returns the dashboards' queries and the alerts' series that have no data.

    Args:
        prometheus: Scrapes a system under load.
        wait: How long to wait for data, in seconds.
    """
    missing = [
        (f"{panel.dashboard}: {panel.title}", query)
        for panel in panels(_RATE_INTERVAL)
        for query, _ in panel.queries
    ]
    missing += [
        (f"alert {rule['alert']}", series)
        for rule in alert_rules(rules())
        for series in selectors(rule["expr"])
    ]
    deadline = time.monotonic() + wait
    while True:
        missing = [(name, query) for name, query in missing if not prometheus.has_data(query)]
        if not missing or time.monotonic() > deadline:
            return [f"{name}: {query}" for name, query in missing]
        time.sleep(_INTERVAL_S)


@click.command()
@click.option("--keep", is_flag=True, help="Keep everything running until Ctrl-C.")
@click.option("--minutes", default=2.0, help="How long the load runs before dashboards are drawn.")
@click.option(
    "--draw",
    default=str(PROJECT / "build" / "observe"),
    help="Folder for an image of each dashboard; empty for none.",
)
def observe(keep: bool, minutes: float, draw: str) -> None:
    """Evaluates every query of the dashboards and alerts; fails if one has no data."""
    end_on_sigterm()
    if program("prometheus") is None:
        raise click.ClickException("Prometheus is not available: see tests/fetch_prometheus.sh")

    def on_step(service: str, step: Step) -> None:
        click.echo(f"{service}: {step.what} ({step.seconds:.1f} s)")

    with tempfile.TemporaryDirectory(prefix="marquee-observe-") as made:
        folder = Path(made)
        with (
            running_production(folder, on_step) as system,
            Prometheus(folder / "prometheus", system.metrics_ports, rules()) as prometheus,
            Load(system) as load,
        ):
            begun = time.time()
            click.echo(f"Prometheus: {prometheus.url}")
            # Some series exist only after a release has been refused.
            with damaged_release(system):
                missing = queries_without_data(prometheus)
            for text in missing:
                click.echo(f"no data: {text}")
            count = sum(len(panel.queries) for panel in panels(_RATE_INTERVAL))
            click.echo(f"{count} queries in {len(panels(_RATE_INTERVAL))} panels")
            if draw:
                time.sleep(max(0.0, begun + minutes * 60 - time.time()))
                for path in draw_dashboards(prometheus, begun, time.time(), Path(draw)):
                    click.echo(f"drew {path}")
            try:
                while keep:
                    time.sleep(_INTERVAL_S)
            except KeyboardInterrupt:
                click.echo("stopping")
            click.echo(f"{load.answered} calls")
            for message, failures in load.failures.items():
                click.echo(f"{failures} failed: {message}")
    if missing:
        sys.exit(1)


if __name__ == "__main__":
    interrupt_on_sigterm()
    observe()
