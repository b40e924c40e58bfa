"""`marquee retrain`: trains, gates and promotes, once or at regular intervals.

Each round runs in a separate process, so a round that crashes or runs out of memory does not stop
later ones, and nothing stays in memory between rounds.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

import click

from marquee_core.release.pruning import prune
from marquee_services.promotion import EXIT_CODES
from marquee_trainer.commands.interrupt import EXIT_CODE
from marquee_trainer.commands.loading import open_store
from marquee_trainer.commands.selection import parse_duration
from marquee_trainer.commands.settings import RetrainSettings
from marquee_trainer.models.configurations import ConfigurationError

# Longer than training takes to stop after SIGTERM.
_STOP_TIMEOUT_S = 30.0
_FAILED = "failed"
_OUTCOMES = {code: decision.value for decision, code in EXIT_CODES.items()}
_ROUNDS_SUFFIX = "-rounds.prom"


def run_rounds(settings: RetrainSettings) -> None:
    """Runs one round per interval, until SIGTERM or Ctrl-C.

    If a round takes longer than the interval, the next one starts immediately.

    Raises:
        ClickException: The interval is not a duration.
    """
    try:
        interval = parse_duration(settings.every, "--every")
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    rounds = _Rounds(settings)
    previous = {
        number: signal.signal(number, rounds.stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        due = time.monotonic()
        while not rounds.stopped.wait(max(0.0, due - time.monotonic())):
            due = time.monotonic() + interval
            rounds.run()
            if not rounds.stopped.is_set():
                at = datetime.now(UTC) + timedelta(seconds=max(0.0, due - time.monotonic()))
                _say(f"the next round is at {at:%Y-%m-%d %H:%M:%S} UTC")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    _say("stopped")


def prune_releases(store_url: str, keep: int) -> None:
    """Deletes old releases that are no longer needed; see `prune`.

    Args:
        store_url: The store.
        keep: Number of newest releases to keep; 0 deletes none.

    Raises:
        ArtifactError: The release in production cannot be determined.
        OSError: The store cannot be read or written to.
    """
    if keep:
        deleted = prune(open_store(store_url), keep).releases
        if deleted:
            click.echo(f"deleted {', '.join(deleted)}")


class _Rounds:
    """Runs rounds and counts their outcomes.

    Attributes:
        stopped: Set by a signal.
    """

    def __init__(self, settings: RetrainSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._outcomes: Counter[str] = Counter()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Runs a round and reports its outcome."""
        _say("round started")
        started = time.monotonic()
        try:
            # In a separate session, so that only this process receives Ctrl-C and then stops the
            # round. The command is fixed, and no shell is involved.
            self._process = subprocess.Popen(  # nosec B603
                [sys.executable, "-m", "marquee.cli", "retrain", "--once"],
                env=_environment(self._settings),
                start_new_session=True,
            )
            if self.stopped.is_set():
                self._process.terminate()
            code = self._wait(self._process)
        except OSError as error:
            # For example, there is too little memory for another process.
            _say(f"the round could not be started: {error}")
            code = 1
        finally:
            self._process = None
        if self.stopped.is_set() and code in (EXIT_CODE, -signal.SIGTERM):
            _say("the round was cancelled")
            return
        outcome = _OUTCOMES.get(code, _FAILED)
        self._outcomes[outcome] += 1
        seconds = time.monotonic() - started
        how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        _say(f"round finished after {seconds:,.0f} s: {outcome} ({how})")
        if self._settings.metrics_file:
            self._write_metrics(outcome, seconds)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handles a signal: stops the round in progress, and starts no further ones."""
        self.stopped.set()
        if self._process is not None:
            self._process.terminate()

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while not self.stopped.is_set():
            try:
                return process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        try:
            return process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _write_metrics(self, outcome: str, seconds: float) -> None:
        """Writes the outcomes of rounds next to the gate's verdict; a failure is only reported."""
        from prometheus_client import CollectorRegistry, Counter, Gauge, write_to_textfile

        registry = CollectorRegistry()
        rounds = Counter(
            "marquee_retrain_rounds_total",
            "Number of rounds since the command was started, by how they ended.",
            ("outcome",),
            registry=registry,
        )
        for name in (*_OUTCOMES.values(), _FAILED):
            rounds.labels(name).inc(self._outcomes[name])
        Gauge(
            "marquee_retrain_last_round_timestamp_seconds",
            "When the last round ended.",
            ("outcome",),
            registry=registry,
        ).labels(outcome).set(time.time())
        Gauge(
            "marquee_retrain_last_round_seconds",
            "How long the last round took.",
            registry=registry,
        ).set(seconds)
        path = Path(self._settings.metrics_file)
        try:
            write_to_textfile(str(path.with_name(path.stem + _ROUNDS_SUFFIX)), registry)
        except OSError as error:
            _say(f"the metrics of rounds cannot be written: {error}")


def _environment(settings: RetrainSettings) -> dict[str, str]:
    """The environment of a round: settings as variables, so that no password is an argument."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": tempfile.gettempdir()}
    for f in dataclasses.fields(settings):
        if f.metadata and f.name not in ("every", "once"):
            name = f.metadata["env"] or f"MARQUEE_TRAIN_{f.name.upper()}"
            value = getattr(settings, f.name)
            environment[name] = str(int(value)) if isinstance(value, bool) else str(value)
    return environment


def _say(text: str) -> None:
    click.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", err=True)
