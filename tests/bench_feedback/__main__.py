"""Measures feedback on real processes, on SQLite and on PostgreSQL.

    python -m bench_feedback --store releases-store

1. Recommend calls at a fixed rate, alternately without and with RecordFeedback calls at a fixed
   rate: the ratio of the 99th percentiles, and the CPU time of the gateway.
2. Two gateways under a steady load of events: the time from the acknowledgement by one gateway to a
   changed answer from the other.

The exit status is 0 if all targets are met.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from bench.context import pick_users
from bench.open_loop import OpenPlan
from bench.processes import Services
from bench_feedback.loads import (
    RECORD_PATH,
    Result,
    RunningLoad,
    recommend_plan,
    recommend_requests,
    record_requests,
)
from marquee import AsyncClient
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from toy.postgresql import PostgreSQL, programs

MAX_GROWTH, MAX_DELAY_S = 1.5, 1.0
_TIMEOUT_S, _POLL_S = 20.0, 0.005
_PROBES = 8  # concurrent users whose effect is awaited


class FeedbackServices(Services):
    """The services with a feedback log, and a folder for their files.

    Attributes:
        folder: The folder.
    """

    def __init__(self, store: str, folder: Path, url: str) -> None:
        self.folder = folder
        super().__init__(store, folder / "logs", {"feedback": url})


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process and its children in seconds."""
    process = psutil.Process(pid)
    family = (process, *process.children(recursive=True))
    return float(sum(sum(one.cpu_times()[:2]) for one in family))


def measure_ingest(
    services: FeedbackServices,
    manifest: Manifest,
    users: Sequence[str],
    arguments: argparse.Namespace,
) -> Iterator[tuple[str, bool]]:
    """Compares Recommend calls without and with ingest, alternately.

    Yields:
        A line of the report, and whether it meets its target.
    """
    address, batches = services.gateway.address, arguments.events / arguments.batch
    folder = services.folder
    raters = [f"rater-{n}" for n in range(arguments.raters)]
    items = [f"item-{n}" for n in range(manifest.data.item_count)]
    requests = recommend_requests(users)
    without: list[Result] = []
    during: list[Result] = []
    cpu: list[float] = []
    written = 0
    for round_ in range(arguments.rounds):
        for ingests in (False, True):
            before = cpu_seconds(services.gateway.pid)
            load = recommend_plan(address, arguments.calls, arguments.seconds)
            reading = RunningLoad(load, requests, folder / "recommend")
            writing = None
            if ingests:
                count = round(batches * load.seconds) + 1
                events = record_requests(raters, items, count, arguments.batch, round_)
                plan = OpenPlan(address, RECORD_PATH, batches, load.seconds, timeout_s=5)
                writing = RunningLoad(plan, events, folder / "record")
            result = reading.result()
            (during if ingests else without).append(result)
            if writing is not None:
                recorded = writing.result()
                written += recorded.answers * arguments.batch
                cpu[-1] = cpu_seconds(services.gateway.pid) - before - cpu[-1]
                yield (
                    f"  with ingest:    p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms; "
                    f"{recorded.answers * arguments.batch / load.seconds:,.0f} events/s, p99 "
                    f"{recorded.p99_ms:.0f} ms, failed records {recorded.errors}; failed calls "
                    f"{result.errors}; additional gateway CPU {cpu[-1] / load.seconds:.0%} of a "
                    "core",
                    not result.errors and not recorded.errors,
                )
            else:
                cpu.append(cpu_seconds(services.gateway.pid) - before)
                yield (
                    f"  without ingest: p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms; "
                    f"failed calls {result.errors}; gateway CPU {cpu[-1] / load.seconds:.0%} of a "
                    "core",
                    not result.errors,
                )
    growth = float(np.median([b.p99_ms / a.p99_ms for a, b in zip(without, during, strict=True)]))
    microseconds = 1e6 * sum(cpu) / max(1, written)
    good = growth < MAX_GROWTH
    yield (
        f"  p99 of Recommend with {arguments.events:,} events/s: {growth:.2f} times (median of "
        f"{arguments.rounds} pairs), target < {MAX_GROWTH:g}; gateway CPU per event "
        f"{microseconds:.0f} us: {'met' if good else 'MISSED'}",
        good,
    )


async def effect_delays(addresses: Sequence[str], users: Sequence[str]) -> list[float]:
    """Rates the first item of each user's list through one gateway, and polls the other.

    Args:
        addresses: The addresses of the two gateways.
        users: The users.

    Returns:
        Seconds from each acknowledgement to the end of the first call with a changed answer.
    """
    slots = asyncio.Semaphore(_PROBES)
    clients = [AsyncClient(address, timeout=_TIMEOUT_S) for address in addresses]

    async def probe(place: int, user: str) -> float:
        writer, reader = clients[place % 2], clients[1 - place % 2]
        async with slots:
            item = (await reader.recommend(user, page_size=1))[0].item_id
            await writer.feedback.rate(user, {item: 4.0})
            start = asyncio.get_running_loop().time()
            while (await reader.recommend(user, page_size=1))[0].item_id == item:
                await asyncio.sleep(_POLL_S)
            return asyncio.get_running_loop().time() - start

    try:
        return await asyncio.gather(*(probe(*each) for each in enumerate(users)))
    finally:
        for client in clients:
            await client.close()


def measure_effects(
    services: FeedbackServices,
    url: str,
    store: str,
    users: Sequence[str],
    arguments: argparse.Namespace,
) -> Iterator[tuple[str, bool]]:
    """Measures the delay until another gateway uses an event, while both record events steadily.

    Yields:
        A line of the report, and whether it meets its target.
    """
    options = {
        "store": store,
        "feedback": url,
        **{f"{s}-target": p.address for s, p in services.processes.items() if s != GATEWAY},
    }
    second = ServiceProcess(GATEWAY, options, services.folder / "gateway-2.log")
    try:
        second.wait_until_serving()
        addresses = [services.gateway.address, second.address]
        raters = [f"rater-{n}" for n in range(arguments.raters)]
        count = round(arguments.steady / 2 * arguments.seconds) + 1
        loads = []
        for place, address in enumerate(addresses):
            events = record_requests(raters, ["a", "b", "c"], count, 1, 100 + place)
            plan = OpenPlan(
                address, RECORD_PATH, arguments.steady / 2, arguments.seconds, timeout_s=5
            )
            loads.append(RunningLoad(plan, events, services.folder / f"steady-{place}"))
        delays = asyncio.run(effect_delays(addresses, users))
        results = [load.result() for load in loads]
    finally:
        second.stop()
    p50, p99 = np.quantile(delays, [0.5, 0.99])
    good = p99 <= MAX_DELAY_S and not any(result.errors for result in results)
    yield (
        f"  from acknowledgement to effect in the other gateway at {arguments.steady:g} events/s: "
        f"p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms ({len(delays)} samples), target <= "
        f"{1e3 * MAX_DELAY_S:.0f} ms; failed records {[r.errors for r in results]}: "
        f"{'met' if good else 'MISSED'}",
        good,
    )


@contextmanager
def databases(folder: Path, which: str) -> Iterator[dict[str, str]]:
    """Creates feedback logs, and yields their URLs by database name."""
    found, server = {}, None
    if which in ("sqlite", "both"):
        found["SQLite"] = f"sqlite:///{folder / 'feedback.sqlite'}"
    bin_folder = programs() if which in ("postgresql", "both") else None
    try:
        if bin_folder is not None:
            server = PostgreSQL(bin_folder)
            found["PostgreSQL"] = server.new_database()
        yield found
    finally:
        if server is not None:
            server.stop()


def main() -> int:
    """Measures and prints the report; the exit status is 0 if all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="folder of the release store")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each load")
    parser.add_argument(
        "--rounds", type=int, default=3, help="pairs of loads without and with ingest"
    )
    parser.add_argument("--calls", type=float, default=200.0, help="Recommend calls per second")
    parser.add_argument("--events", type=int, default=2000, help="events per second of ingest")
    parser.add_argument("--batch", type=int, default=100, help="events per RecordFeedback call")
    parser.add_argument(
        "--steady", type=float, default=200.0, help="events per second while effects are measured"
    )
    parser.add_argument(
        "--raters", type=int, default=2000, help="number of users who record events"
    )
    arguments = parser.parse_args()
    store = ReleaseStore(arguments.store)
    production = store.production()
    if production is None:
        raise SystemExit("the store has no release in production")
    manifest = store.manifest(production.release_id)
    users = pick_users(store, manifest, 500, seed=0)
    all_good = True
    with (
        tempfile.TemporaryDirectory(prefix="marquee-bench-") as name,
        databases(Path(name), arguments.database) as found,
    ):
        for database, url in found.items():
            sys.stdout.write(f"{database}\n")
            folder = Path(tempfile.mkdtemp(dir=name))
            with FeedbackServices(arguments.store, folder, url) as services:
                lines = [
                    measure_ingest(services, manifest, users, arguments),
                    measure_effects(services, url, arguments.store, users, arguments),
                ]
                for line, good in (each for part in lines for each in part):
                    sys.stdout.write(f"{line}\n")
                    sys.stdout.flush()
                    all_good &= good
    return int(not all_good)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
