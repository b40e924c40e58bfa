"""`marquee retrain`: it continues after failed rounds, stops on SIGTERM, and runs only once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from marquee_core.release.lease import Lease
from marquee_core.release.store import ReleaseStore
from marquee_trainer.commands.trainer_lease import TRAINER_LEASE
from toy.waiting import wait_until

# Generous, since importing TensorFlow takes long on a loaded machine.
TIMEOUT_S = 300.0


def retrain(store: Path, *options: str) -> list[str]:
    """Return the command with one quick model."""
    command = [sys.executable, "-m", "marquee.cli", "retrain", f"--store={store}", "--models=ease"]
    return [*command, *options]


def write_ratings(path: Path) -> None:
    """Write ratings of 60 users who like one half of 40 items immediately, or not at all."""
    random = np.random.default_rng(0)
    rows = ["user,item,rating,timestamp"]
    for user in range(60):
        for place, item in enumerate(random.permutation(40)[:25].tolist()):
            stars = 5 if (item < 20) == (user % 2 == 0) else 2
            rows.append(f"u{user},i{item},{stars - int(random.random() < 0.3)},{1000 + place}")
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(rows))
    partial.replace(path)


@pytest.mark.slow
def test_rounds_survive_a_failure_and_end_on_sigterm(tmp_path: Path) -> None:
    """The ratings arrive after the first round, and the command ends cleanly between rounds."""
    store, data, log = tmp_path / "store", tmp_path / "ratings.csv", tmp_path / "log"
    metrics = tmp_path / "gate.prom"
    options = (f"--data={data}", "--every=1s", f"--metrics-file={metrics}")
    with log.open("w") as stream:
        process = subprocess.Popen(
            retrain(store, *options), stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: ": failed (exit code 1)" in log.read_text(), TIMEOUT_S)
        write_ratings(data)
        wait_until(lambda: ": promote (exit code 0)" in log.read_text(), TIMEOUT_S)
        assert ReleaseStore(str(store)).production() is not None
        rounds = (tmp_path / "gate-rounds.prom").read_text()
        assert 'marquee_retrain_rounds_total{outcome="promote"} 1.0' in rounds
        assert 'marquee_gate_decision{decision="promote"} 1.0' in metrics.read_text()
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert log.read_text().endswith("stopped\n")
    lease = json.loads((store / TRAINER_LEASE).read_text())
    assert lease["expires"] == 0 or not os.path.exists(f"/proc/{lease['pid']}")


@pytest.mark.slow
def test_sigterm_ends_a_round_during_training(tmp_path: Path) -> None:
    """Nothing is published, and no process is left."""
    store, log = tmp_path / "store", tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            retrain(store, "--data=sample", "--models=bayesian_mf"),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(
            lambda: (store / TRAINER_LEASE).exists() and "fit bayesian_mf" in log.read_text()
        )
        trainer = json.loads((store / TRAINER_LEASE).read_text())["pid"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "the round was cancelled" in log.read_text()
    assert not store.exists()
    wait_until(lambda: not os.path.exists(f"/proc/{trainer}"))


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    """The second trainer exits immediately, and the first one continues."""
    store = ReleaseStore(str(tmp_path / "store"))
    with Lease(store.storage, TRAINER_LEASE) as lease:
        done = subprocess.run(
            retrain(tmp_path / "store", "--once", "--data=sample"),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        lease.check()
    assert done.returncode == 1
    assert f"(process {os.getpid()}) has held {TRAINER_LEASE} since" in done.stderr
    assert store.ids() == []
