"""Slow and frozen replicas, and a large batch: how they affect the single calls of others.

    python -m faults.slow_and_frozen --store releases-store

Prints a row for each fault, and fails if one of them is not survived. Without a store it trains a
small release. Latencies are compared with those measured without the fault in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.computed_requests import computed_requests
from bench.context import RECOMMEND_PATH, pick_users
from bench.open_loop import OpenPlan
from faults.batch_process import running_batch
from faults.chaos_proxy import ChaosProxy
from faults.fault_table import Row, report_details
from faults.load_process import Result, run_load
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from toy.waiting import wait_until

_SAMPLE = "sample:users=600,items=800,ratings=40000"
_MODELS = "ease,item_cf"
# Calls per second, which the two replicas handle easily.
_RATE = 40.0
# Target: p99 relative to the p99 without the fault, once the fault has lasted so many seconds.
_MAX_LATENCY, _WITHIN_S = 2.0, 2.0
_DELAY_S = 0.4
_BATCH, _BATCH_ITEMS = 10_000, 1_000
# Target: p99 of single calls beside a batch, relative to the p99 without it.
_MAX_BATCH_LATENCY = 3.0


@dataclass
class System:
    """Two CF replicas, the second behind a proxy, an inference service and a gateway.

    Attributes:
        folder: Folder for temporary files.
        gateway: The gateway.
        second: The second CF replica.
        proxy: The proxy in front of the second replica.
        messages: Serialised Recommend requests of visitors.
    """

    folder: Path
    gateway: ServiceProcess
    second: ServiceProcess
    proxy: ChaosProxy
    messages: list[bytes]

    def load(self, seconds: float) -> Result:
        """Makes calls at a fixed rate."""
        plan = OpenPlan(self.gateway.address, RECOMMEND_PATH, _RATE, seconds, timeout_s=5)
        return run_load(plan, self.messages, self.folder)


@contextmanager
def running_system(store: str, folder: Path) -> Iterator[System]:
    """Starts the processes, and stops them at the end."""
    release = ReleaseStore(store)
    production = release.production()
    if production is None:
        raise SystemExit("the store has no release in production")
    requests = computed_requests(release, release.manifest(production.release_id), 300, seed=0)
    with ExitStack() as stack:

        def start(service: str, name: str, **options: str) -> ServiceProcess:
            shared = {"store": store, "cache-dir": str(folder / "cache")}
            process = ServiceProcess(service, shared | options, folder / f"{name}.log")
            stack.callback(process.kill)
            process.wait_until_serving()
            return process

        first, second = start(CF, "cf-1"), start(CF, "cf-2")
        inference = start(INFERENCE, "inference")
        proxy = stack.enter_context(ChaosProxy(second.address))
        targets = {
            "cf-target": f"ipv4:{first.address},{proxy.address}",
            "inference-target": inference.address,
        }
        gateway = start(GATEWAY, "gateway", **targets)
        system = System(folder, gateway, second, proxy, requests["visitors with 30 ratings"])
        system.load(3.0)  # Warms up the gateway's latency averages.
        yield system


def slow_replica(system: System, seconds: float) -> Row:
    """Delays all responses of a replica."""

    def begin() -> None:
        system.proxy.delay_s = _DELAY_S

    def end() -> None:
        system.proxy.delay_s = 0.0

    return _compared(
        system, f"one of two replicas {_DELAY_S * 1000:.0f} ms slower", begin, end, seconds
    )


def halting_replica(system: System, seconds: float) -> Row:
    """Repeatedly suspends and resumes a replica."""
    stop = threading.Event()

    def halt() -> None:
        while not stop.wait(0.1):
            system.second.suspend()
            time.sleep(0.2)
            system.second.resume()

    thread = threading.Thread(target=halt)

    def end() -> None:
        stop.set()
        thread.join()

    return _compared(
        system, "one of two replicas suspended for 200 of 300 ms", thread.start, end, seconds
    )


def _compared(
    system: System, fault: str, begin: Callable[[], None], end: Callable[[], None], seconds: float
) -> Row:
    row = Row(fault)
    before = system.load(seconds)
    start = time.monotonic()
    begin()
    try:
        first = system.load(_WITHIN_S - 1.0)
        time.sleep(max(0.0, start + _WITHIN_S - time.monotonic()))
        after = system.load(seconds)
    finally:
        end()
    ratio = after.p99_ms / before.p99_ms
    failed = sum(first.errors.values()) + sum(after.errors.values())
    degraded = first.degraded + after.degraded
    calls = before.begun + first.begun + after.begun
    row.details = (
        f"{calls:,} calls, {failed} failed, {degraded} degraded; "
        f"p50 {before.p50_ms:.0f} → {after.p50_ms:.0f} ms, p99 {before.p99_ms:.0f} → "
        f"{after.p99_ms:.0f} ms after {_WITHIN_S:g} s ({ratio:.1f} times); {first.p99_ms:.0f} ms "
        "in the first second"
    )
    row.check(not failed, f"{failed} calls failed: {dict(first.errors)} {dict(after.errors)}")
    row.check(not degraded, f"{degraded} answers were degraded")
    row.check(ratio <= _MAX_LATENCY, f"p99 is {ratio:.1f} times that without the fault")
    return row


def batch_beside_calls(system: System, users: list[str], seconds: float) -> Row:
    """Sends a large batch with metadata, again and again, while others make single calls."""
    row = Row("a large batch")
    subjects = [users[number % len(users)] for number in range(_BATCH)]
    before = system.load(seconds)
    with running_batch(system.gateway.address, subjects, _BATCH_ITEMS) as batch:
        wait_until(lambda: batch.answers or batch.has_failed, what="the first answer of the batch")
        during = system.load(seconds)
        row.check(not batch.has_failed, "the batch failed")
    ratio = during.p99_ms / before.p99_ms
    failed = sum(during.errors.values())
    row.details = (
        f"{batch.answers:,} answers with {_BATCH_ITEMS:,} items and metadata; {during.begun:,} "
        f"single calls, {failed} failed, {during.degraded} degraded; p50 {before.p50_ms:.0f} → "
        f"{during.p50_ms:.0f} ms, p99 {before.p99_ms:.0f} → {during.p99_ms:.0f} ms "
        f"({ratio:.1f} times)"
    )
    row.check(not failed, f"{failed} calls failed: {dict(during.errors)}")
    row.check(not during.degraded, f"{during.degraded} answers were degraded")
    row.check(ratio <= _MAX_BATCH_LATENCY, f"p99 is {ratio:.1f} times that without the batch")
    return row


def known_users(store: str) -> list[str]:
    """Returns the ids of users of the release in production."""
    release = ReleaseStore(store)
    production = release.production()
    assert production is not None
    return pick_users(release, release.manifest(production.release_id), _BATCH, seed=0)


def _train(store: Path) -> None:
    command = (
        "marquee.cli",
        "train",
        "--store",
        str(store),
        "--models",
        _MODELS,
        "--data",
        _SAMPLE,
    )
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Prints the table; the exit status is 0 if all faults were survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--store", help="folder of a release store (default: train a small release)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each load")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = arguments.store or str(folder / "store")
        if not arguments.store:
            _train(folder / "store")
        with running_system(store, folder) as system:
            rows = [
                slow_replica(system, arguments.seconds),
                halting_replica(system, arguments.seconds),
                batch_beside_calls(system, known_users(store), arguments.seconds),
            ]
    return report_details(rows)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
