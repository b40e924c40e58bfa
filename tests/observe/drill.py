"""Causes faults in a running system, and times the alerts that they are for: `make drill`."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from deploy_check.processes import Step
from deploy_check.system import ITEM_IDS, USER_IDS
from marquee import MarqueeError
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from observe.demo import Demo, Load, damaged_release, end_on_sigterm, running_demo
from observe.kit import rules, shortened
from observe.prometheus import Prometheus, program

_FACTOR = 20.0
_WAIT_S = 300.0
_INTERVAL_S = 0.2
_FLOOD_THREADS, _FLOOD_MAX_CALLS = 32, 4
_FULL_MIB = 64


@dataclass(frozen=True)
class Drill:
    """A fault that is caused for real.

    Attributes:
        fault: What is done.
        alerts: The alerts that must fire, all of them.
        cause: A context in which the fault is there.
    """

    fault: str
    alerts: tuple[str, ...]
    cause: Callable[[Demo], AbstractContextManager[None]]


@dataclass(frozen=True)
class Outcome:
    """What came of a drill.

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


@contextmanager
def _killed(demo: Demo, service: str) -> Iterator[None]:
    demo.servers[service].kill()
    try:
        yield
    finally:
        demo.servers[service].start()


@contextmanager
def _frozen(demo: Demo, service: str) -> Iterator[None]:
    process = demo.servers[service].process
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def _store_away(demo: Demo) -> Iterator[None]:
    """Takes the volume of the store away."""
    root = demo.place.volume("/store")
    hidden = root.with_name("store-away")
    root.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(root)


@contextmanager
def _flooded(demo: Demo) -> Iterator[None]:
    """Calls from many threads at once, far more than the gateway admits."""
    stop = threading.Event()

    def call() -> None:
        with demo.client() as client:
            while not stop.is_set():
                try:
                    client.recommend(ratings=dict.fromkeys(ITEM_IDS[:5], 4.0))
                except MarqueeError:
                    stop.wait(0.01)

    with concurrent.futures.ThreadPoolExecutor(_FLOOD_THREADS) as pool:
        for _ in range(_FLOOD_THREADS):
            pool.submit(call)
        try:
            yield
        finally:
            stop.set()


@contextmanager
def _full_disk(demo: Demo) -> Iterator[None]:
    """Fills the volume of the feedback log, while users go on giving feedback."""
    filler = demo.feedback / "filler"
    with filler.open("wb", buffering=0) as stream:
        while True:
            try:
                stream.write(b"\0" * 4096)
            except OSError:
                break
    stop = threading.Event()

    def record() -> None:
        with demo.client() as client:
            while not stop.wait(0.02):
                try:
                    client.feedback.rate(USER_IDS[0], dict.fromkeys(ITEM_IDS, 3.0))
                except MarqueeError:
                    continue

    thread = threading.Thread(target=record)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        filler.unlink()


DRILLS = (
    Drill(
        "the CF service is killed",
        ("MarqueeServerDown", "MarqueeBackendDown", "MarqueeDegradedBudgetBurns"),
        lambda demo: _killed(demo, CF),
    ),
    Drill(
        "the inference service is frozen",
        ("MarqueeServerDown", "MarqueeBackendDown"),
        lambda demo: _frozen(demo, INFERENCE),
    ),
    Drill("the gateway is frozen", ("MarqueeServerDown",), lambda demo: _frozen(demo, GATEWAY)),
    Drill(
        "a damaged release is promoted",
        ("MarqueeReleaseRefused", "MarqueeReleaseNotServed"),
        damaged_release,
    ),
    Drill("the store is taken away", ("MarqueeStoreUnreachable",), _store_away),
    Drill("the gateway is flooded", ("MarqueeOverloaded",), _flooded),
    Drill("the volume of the feedback log is full", ("MarqueeErrorBudgetBurns",), _full_disk),
)


def run_drill(drill: Drill, demo: Demo, prometheus: Prometheus) -> list[Outcome]:
    """Causes a fault, waits for its alerts, ends it, and waits until they are over."""
    begun = time.monotonic()
    with drill.cause(demo):
        fired = _await(prometheus, drill.alerts, begun, firing=True)
    ended = time.monotonic()
    over = _await(prometheus, drill.alerts, ended, firing=False)
    return [Outcome(drill.fault, name, fired.get(name), over.get(name)) for name in drill.alerts]


def _await(
    prometheus: Prometheus, names: tuple[str, ...], begun: float, *, firing: bool
) -> dict[str, float]:
    """The seconds after which each alert fired, or was over."""
    seen: dict[str, float] = {}
    while len(seen) < len(names) and time.monotonic() - begun < _WAIT_S:
        now = {alert.name for alert in prometheus.alerts() if alert.state == "firing"}
        for name in names:
            if (name in now) is firing:
                seen.setdefault(name, time.monotonic() - begun)
        time.sleep(_INTERVAL_S)
    return seen


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
@click.option("--only", default="", help="A part of the faults' names.")
@click.option("--factor", default=_FACTOR, help="What windows and waiting times are divided by.")
def run(only: str, factor: float) -> None:
    """Causes each fault, and prints how long its alerts took; fails if one did not fire."""
    end_on_sigterm()
    if program("prometheus") is None:
        raise click.ClickException("Prometheus is not available: see tests/fetch_prometheus.sh")
    outcomes: list[Outcome] = []

    def on_step(service: str, step: Step) -> None:
        click.echo(f"{service}: {step.what} ({step.seconds:.1f} s)", err=True)

    limits = {GATEWAY: {"MARQUEE_GATEWAY_MAX_CALLS": str(_FLOOD_MAX_CALLS)}}
    with tempfile.TemporaryDirectory(prefix="marquee-drill-") as made:
        folder = Path(made)
        feedback = folder / "feedback"
        feedback.mkdir()
        with (
            small_volume(feedback, _FULL_MIB) as can_fill,
            running_demo(folder, on_step, limits) as demo,
            Prometheus(
                folder / "prometheus", demo.metrics_ports, shortened(rules(), factor)
            ) as prometheus,
            Load(demo),
        ):
            click.echo(f"windows and waiting times are divided by {factor:g}")
            click.echo(f"{'fault':<40} {'alert':<28} {'fires after':>12} {'over after':>12}")
            for drill in DRILLS:
                if only not in drill.fault:
                    continue
                if drill.cause is _full_disk and not can_fill:
                    click.echo(f"{drill.fault:<40} left out: no volume can be mounted here")
                    continue
                for outcome in run_drill(drill, demo, prometheus):
                    outcomes.append(outcome)
                    click.echo(
                        f"{outcome.fault:<40} {outcome.alert:<28} "
                        f"{_seconds(outcome.fired):>12} {_seconds(outcome.over):>12}"
                    )
    if any(outcome.fired is None for outcome in outcomes):
        sys.exit(1)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    run()
