"""Measures how release swaps affect callers: releases are promoted in turn under a steady load.

    python -m faults.release_swaps --store releases-store

Compares latencies with those measured without swaps in the same run. The store must hold at least
two releases; without `--store`, three small releases are trained.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import marquee
from bench.computed_requests import computed_requests
from bench.context import RECOMMEND_PATH
from bench.open_loop import OpenPlan
from faults.fault_table import Row, report_details
from faults.load_process import Result, run_load
from marquee_core.release.store import ReleaseStore
from marquee_services.processes import ServiceGroup
from termination import interrupt_on_sigterm
from toy.waiting import wait_until

_SAMPLE = "sample:users=600,items=800,ratings=40000"
_MODELS = "ease,item_cf"
_RATE = 40.0
# Each question about the status takes milliseconds of CPU time, from the measured calls too.
_STATUS_INTERVAL_S = 0.1
# Target: p99 relative to the p99 without swaps.
_MAX_LATENCY = 1.5


class Swapper:
    """A thread that promotes releases in turn, each a second after the previous one is in service.

    Attributes:
        swaps: Number of releases that came into service.
    """

    def __init__(self, store: ReleaseStore, releases: list[str], address: str) -> None:
        """Prepares the thread.

        Args:
            store: The release store.
            releases: Ids of the releases to promote in turn.
            address: The gateway's address.
        """
        self.swaps = 0
        self._store, self._releases, self._address = store, releases, address
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread after the swap in progress."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        with marquee.Client(self._address, timeout=20.0) as client:

            def serves(release_id: str) -> bool:
                release = client.status().release
                return release is not None and release.release_id == release_id

            for release_id in itertools.cycle(self._releases):
                if self._stopped.wait(1.0):
                    return
                self._store.promote(release_id)
                wait_until(
                    partial(serves, release_id), what="the swap", interval_s=_STATUS_INTERVAL_S
                )
                self.swaps += 1


def swapped(store: ReleaseStore, folder: Path, seconds: float) -> Row:
    """Makes calls at a fixed rate, first without swaps and then with them."""
    row = Row("repeated release swaps")
    production = store.production()
    if production is None:
        raise SystemExit("the store has no release in production")
    releases = sorted(store.ids(), key=lambda release_id: release_id == production.release_id)
    if len(releases) < 2:
        raise SystemExit("the store has only one release")
    manifest = store.manifest(production.release_id)
    messages = computed_requests(store, manifest, 300, seed=0)["visitors with 30 ratings"]
    with ServiceGroup(store.url, folder / "logs") as services:
        address = services.gateway.address

        def load(duration: float) -> Result:
            plan = OpenPlan(address, RECOMMEND_PATH, _RATE, duration, timeout_s=5)
            return run_load(plan, messages, folder)

        load(3.0)  # Warms up.
        before = load(seconds)
        swapper = Swapper(store, releases[:3], address)
        swapper.start()
        try:
            during = load(2 * seconds)
        finally:
            swapper.stop()
    ratio = during.p99_ms / before.p99_ms
    failed = sum(during.errors.values())
    row.details = (
        f"{swapper.swaps} swaps of {len(releases[:3])} releases: {during.begun:,} calls, {failed} "
        f"failed, {during.degraded} degraded; p50 {before.p50_ms:.0f} → {during.p50_ms:.0f} ms, "
        f"p99 {before.p99_ms:.0f} → {during.p99_ms:.0f} ms ({ratio:.1f} times)"
    )
    row.check(swapper.swaps >= 2, f"only {swapper.swaps} releases came into service")
    row.check(not failed, f"{failed} calls failed: {dict(during.errors)}")
    row.check(not during.degraded, f"{during.degraded} answers were degraded")
    row.check(ratio <= _MAX_LATENCY, f"p99 is {ratio:.1f} times that without swaps")
    return row


def main() -> int:
    """Prints the table; the exit status is 0 if the swaps did not affect callers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", help="folder of a release store (default: train small releases)")
    parser.add_argument("--seconds", type=float, default=12.0, help="duration without swaps")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = arguments.store or str(folder / "store")
        if not arguments.store:
            for seed in range(3):
                train = ("marquee.cli", "train", "--store", store, "--models", _MODELS)
                options = ("--data", _SAMPLE, "--seed", str(seed), "--no-promote", "--no-gate")
                subprocess.run(
                    [sys.executable, "-m", *train, *options],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
            trained = ReleaseStore(store)
            trained.promote(trained.ids()[0])
        row = swapped(ReleaseStore(store), folder, arguments.seconds)
    return report_details([row])


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
