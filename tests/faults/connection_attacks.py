"""Attacks a gateway's connections from separate processes while users call it.

    python -m faults.connection_attacks

Prints a row for each attack. An attack is survived if no user's call fails and the gateway's memory
stays within its limit. The increase in latency is only reported, because it depends on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

import marquee
from faults.attacker import (
    EMPTY_SUBJECTS,
    IDLE_CONNECTIONS,
    RESETS,
    SILENT_STREAMS,
    UNREAD_ANSWERS,
    UNREAD_BATCHES,
    attack,
)
from faults.callers import CALL_TIMEOUT_S, Callers
from faults.fault_table import Row, report
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from ports import free_port
from termination import interrupt_on_sigterm
from toy.release import ITEMS, USERS, publish_toy
from toy.waiting import wait_until

_MIB = 1024 * 1024
_SAMPLE_S = 0.1
_WAIT_S = 60.0


@dataclass(frozen=True)
class AttackPlan:
    """An attack and its limits.

    Attributes:
        name: The row's name.
        kind: The kind of attack.
        connections: Number of connections.
        streams: Number of concurrent calls on each connection.
        max_growth_mib: Maximum growth of the gateway's memory in MiB.
    """

    name: str
    kind: str
    connections: int
    streams: int
    max_growth_mib: int


ATTACKS = (
    AttackPlan("1,025 unread batch answers, 25 connections", UNREAD_BATCHES, 25, 41, 100),
    AttackPlan("2,500 unread answers, 25 connections", UNREAD_ANSWERS, 25, 100, 150),
    AttackPlan("10,016 streams without a request, 313 connections", SILENT_STREAMS, 313, 32, 300),
    AttackPlan("rapid stream resets, 4 connections", RESETS, 4, 0, 100),
    AttackPlan("rapid stream resets, 25 connections", RESETS, 25, 0, 100),
    AttackPlan("two million empty subjects (4 MB), 8 callers", EMPTY_SUBJECTS, 8, 1, 150),
)


@contextmanager
def gateway(folder: Path, **options: str | None) -> Iterator[ServiceProcess]:
    """Runs a gateway that needs no backends, and kills it at the end if it still runs.

    Args:
        folder: An empty folder.
        options: Additional flags, with underscores.
    """
    store = ReleaseStore(str(folder / "store"))
    store.promote(publish_toy(store, folder / "made", backends=()).release_id)
    flags: dict[str, str | None] = {"store": store.url, "cache-dir": str(folder / "cache")}
    flags |= {name.replace("_", "-"): value for name, value in options.items()}
    process = ServiceProcess(GATEWAY, flags, folder / "gateway.log")
    try:
        process.wait_until_serving()
        yield process
    finally:
        process.kill()


def users_of(process: ServiceProcess) -> Callers:
    """Returns users who call a gateway."""
    users, items = [f"u{n}" for n in range(USERS)], [f"i{n}" for n in range(ITEMS)]
    return Callers(process.address, users, items)


def run_attack(plan: AttackPlan, folder: Path, seconds: float) -> Row:
    """Attacks a gateway while users call it, and compares with the time before.

    Args:
        plan: The attack.
        folder: An empty folder.
        seconds: Duration of the attack; the measurement before it takes half as long.
    """
    row = Row(plan.name)
    with gateway(folder) as process, users_of(process) as users:
        watched = psutil.Process(process.pid)
        start = time.monotonic()
        time.sleep(seconds / 2)
        before, quiet = watched.memory_info().rss, users.between(start, time.monotonic())
        peak = before
        with attack(plan.kind, process.address, plan.connections, plan.streams):
            begin = time.monotonic()
            while time.monotonic() < begin + seconds:
                peak = max(peak, watched.memory_info().rss)
                time.sleep(_SAMPLE_S)
            end = time.monotonic()
        closed = time.monotonic()
        wait_until(
            lambda: users.between(closed, time.monotonic()).total > 0,
            what="a call after the attack",
        )
        after = users.between(closed, time.monotonic())
        row.recovery_s = time.monotonic() - closed
        # Taken only now, so that it includes calls that outlasted the attack.
        calls = users.between(begin, end)
        open_after = len(watched.net_connections())
        status = process.stop()
    row.calls = calls
    growth = (peak - before) / _MIB
    slowdown = calls.percentile_ms(99) / quiet.percentile_ms(99)
    row.details = (
        f"p99 was {slowdown:.1f} times that before the attack; {calls.shed} users' calls were "
        f"shed; the gateway's memory grew by {growth:.0f} MiB from {before / _MIB:.0f} MiB; "
        f"{open_after} sockets were open afterwards"
    )
    row.check(calls.failed == 0, f"{calls.failed} users' calls failed: {calls.error}")
    row.check(after.failed == 0, f"{after.failed} calls failed after the attack: {after.error}")
    row.check(growth <= plan.max_growth_mib, f"the gateway's memory grew by {growth:.0f} MiB")
    row.check(status == 0, f"the gateway exited with status {status}")
    return row


def descriptors_exhausted(folder: Path, seconds: float, limit: int = 256) -> Row:
    """Opens more connections than the gateway has file descriptors.

    The gateway keeps some descriptors in reserve: it still answers on open connections, answers
    health checks on the health port, loads a new release and shuts down cleanly.
    """
    row = Row(f"{2 * limit} connections, {limit} file descriptors")
    options = {
        "health_port": str(free_port()),
        "poll_interval": "0.1",
        "max_connections": str(limit // 2),
    }
    with ExitStack() as stack:
        process = stack.enter_context(gateway(folder, **options))
        users = stack.enter_context(users_of(process))
        client = stack.enter_context(marquee.Client(process.address, timeout=CALL_TIMEOUT_S))
        watched = psutil.Process(process.pid)
        watched.rlimit(psutil.RLIMIT_NOFILE, (limit, limit))
        client.status()
        wait_until(lambda: users.between(0.0, time.monotonic()).total > 0, what="the first answer")
        store = ReleaseStore(str(folder / "store"))
        peak = 0
        with attack(IDLE_CONNECTIONS, process.address, 2 * limit):
            begin = time.monotonic()
            new = publish_toy(store, folder / "next", seed=1, backends=()).release_id
            store.promote(new)
            while time.monotonic() < begin + seconds:
                peak = max(peak, watched.num_fds())
                time.sleep(_SAMPLE_S)
            healthy = is_serving(f"127.0.0.1:{options['health_port']}")
            wait_until(
                lambda: client.recommend("u1").source.release_id == new, what="the new release"
            )
            end = time.monotonic()
        row.calls = users.between(begin, end)
        row.recovery_s = users.recovered_after(end)
        status = process.stop()
    row.details = (
        f"the gateway used at most {peak} descriptors; the health check "
        f"{'passed' if healthy else 'failed'}; a new release was loaded meanwhile"
    )
    row.check(row.calls.failed == 0, f"{row.calls.failed} calls failed: {row.calls.error}")
    row.check(peak < limit, "no descriptor was left")
    row.check(healthy, "the health check failed")
    row.check(status == 0, f"the gateway exited with status {status}")
    return row


def is_serving(address: str) -> bool:
    """Returns whether a health check on a new connection answers SERVING."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S)
    serving: bool = answer.status == health_pb2.HealthCheckResponse.SERVING
    return serving


def main() -> int:
    """Runs all attacks; the exit status is 0 if all were survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of each attack")
    parser.add_argument("--only", default="", help="run only attacks whose kind contains this")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for plan in ATTACKS:
            if arguments.only in plan.kind:
                folder = Path(tempfile.mkdtemp(dir=name))
                rows.append(run_attack(plan, folder, arguments.seconds))
                shutil.rmtree(folder)
        if arguments.only in IDLE_CONNECTIONS:
            rows.append(descriptors_exhausted(Path(tempfile.mkdtemp(dir=name)), 4.0))
    return report(rows)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
