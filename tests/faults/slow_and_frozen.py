"""Slow and frozen processes: how one slow replica or frozen gateway of two affects callers.

    python -m faults.slow_and_frozen --store releases-store

Prints a row for each fault, and fails if one of them is not survived. Without a store it trains a
small release. Latencies are compared with those measured without the fault in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

import marquee
from bench.computed_requests import computed_requests
from bench.context import RECOMMEND_PATH
from bench.load import LoadPlan
from bench.open_loop import OpenPlan
from faults.callers import CALL_TIMEOUT_S
from faults.chaos_proxy import ChaosProxy
from faults.fault_table import Row
from faults.load_process import Result, run_load
from marquee.cli.table import render
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from toy.release import ITEMS, publish_toy
from toy.waiting import wait_until

_SAMPLE = "sample:users=600,items=800,ratings=40000"
_MODELS = "ease,item_cf"
# Calls per second, which the two replicas handle easily.
_RATE = 40.0
# Target: p99 relative to the p99 without the fault, once the fault has lasted so many seconds.
_MAX_LATENCY, _WITHIN_S = 2.0, 2.0
_DELAY_S = 0.4
# The load of an overloaded gateway relative to its peak, its duration, and gRPC's status numbers.
_OVERLOAD, _OVERLOADED_S = 2.0, 4.0
_CANCELLED, _UNAVAILABLE = "1", "14"
# The channels that call without watching the health of the gateways, and the pause between calls.
_UNWATCHED, _UNWATCHED_PAUSE_S = 8, 0.02
_RETRYING = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


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


@dataclass
class Calls:
    """How the calls of one kind of client ended.

    Attributes:
        seconds: Latency of each answered call in seconds.
        errors: The errors of the failed calls.
    """

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def two_gateways(folder: Path) -> Iterator[list[ServiceProcess]]:
    """Runs two gateways whose release needs no backends, and kills them at the end."""
    store = ReleaseStore(str(folder / "without-backends"))
    store.promote(publish_toy(store, folder / "made", backends=()).release_id)
    with ExitStack() as stack:
        gateways = []
        for number in range(2):
            options = {"store": store.url, "cache-dir": str(folder / "cache")}
            process = ServiceProcess(GATEWAY, options, folder / f"gateway-{number}.log")
            stack.callback(process.kill)
            gateways.append(process)
        for gateway in gateways:
            gateway.wait_until_serving()
        yield gateways


def _target(gateways: Sequence[ServiceProcess]) -> str:
    return "ipv4:" + ",".join(gateway.address for gateway in gateways)


def frozen_gateways(folder: Path, freezes: int) -> list[Row]:
    """Repeatedly suspends one of two gateways, while clients with default settings call them."""
    with two_gateways(folder) as gateways:
        target = _target(gateways)
        return [
            _frozen(f"one of two gateways frozen, {name}", gateways, target, users, freezes)
            for name, users in (("blocking client", _threads), ("asyncio client", _tasks))
        ]


def _frozen(
    fault: str,
    gateways: list[ServiceProcess],
    target: str,
    users: Callable[[str, threading.Event, Calls], None],
    freezes: int,
) -> Row:
    row, calls, stop = Row(fault), Calls(), threading.Event()
    load = threading.Thread(target=users, args=(target, stop, calls))
    load.start()
    try:
        for number in range(freezes):
            time.sleep(1.0 + 0.37 * (number % 3))
            gateways[number % 2].suspend()
            time.sleep(2.0)
            gateways[number % 2].resume()
        time.sleep(1.0)
    finally:
        for gateway in gateways:
            gateway.resume()
        stop.set()
        load.join()
    p50, p99 = (1e3 * float(np.percentile(calls.seconds, q)) for q in (50, 99))
    row.details = (
        f"{freezes} freezes of 2 s: {len(calls.seconds) + len(calls.errors):,} calls, "
        f"{len(calls.errors)} failed; p50 {p50:.1f} ms, p99 {p99:.0f} ms, longest "
        f"{1e3 * max(calls.seconds):.0f} ms"
    )
    row.check(not calls.errors, f"{len(calls.errors)} calls failed: {calls.errors[:1]}")
    return row


def drained_gateway(folder: Path, subjects: int) -> Row:
    """Shuts down a gateway while it streams a batch; another gateway answers the rest."""
    row = Row("gateway shut down during a batch")
    with two_gateways(folder) as gateways, marquee.Client(_target(gateways)) as client:
        answered: list[list[int]] = [[], []]
        errors: list[str] = []

        def call(number: int) -> None:
            users = [marquee.Subject(ratings={"i1": 1 + n % 4}) for n in range(subjects)]
            try:
                for answer in client.batch_recommend(users, timeout=CALL_TIMEOUT_S * 5):
                    answer.unwrap()
                    answered[number].append(answer.index)
            except marquee.MarqueeError as error:
                errors.append(repr(error))

        # The client balances the two batches over the two gateways.
        threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        wait_until(
            lambda: min(map(len, answered)) > subjects // 10, what="the answers to both batches"
        )
        before = [len(indexes) for indexes in answered]
        status = gateways[0].stop()
        for thread in threads:
            thread.join()
    row.details = (
        f"two batches of {subjects:,} subjects had {before[0]:,} and {before[1]:,} answers when "
        f"one gateway received SIGTERM; {sum(map(len, answered)):,} answers in total, exit status "
        f"{status}"
    )
    row.check(not errors, f"a batch failed: {errors[:1]}")
    row.check(min(before) < subjects, "the batches were complete before the gateway stopped")
    for indexes in answered:
        row.check(sorted(indexes) == list(range(subjects)), "answers are missing or duplicated")
    row.check(status == 0, f"the gateway exited with status {status}")
    return row


def unwatched_gateway(folder: Path) -> Row:
    """Shuts down one of two gateways, called by gRPC clients that do not watch its health."""
    row, channels = Row("gateway shut down, clients without health watch"), []
    outcomes: list[str] = []
    with two_gateways(folder) as gateways, ExitStack() as stack:
        options = [
            ("grpc.service_config", json.dumps(_RETRYING)),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        for _ in range(_UNWATCHED):
            channel = grpc.insecure_channel(_target(gateways), options)
            channels.append(stack.enter_context(channel))
        stubs = [RecommenderServiceStub(channel) for channel in channels]
        stop = threading.Event()

        def call(stub: RecommenderServiceStub) -> None:
            request = pb.RecommendRequest(subject=types_pb2.Subject(user_id="nobody"))
            while not stop.wait(_UNWATCHED_PAUSE_S):
                try:
                    stub.Recommend(request, timeout=CALL_TIMEOUT_S)
                    outcomes.append("")
                except grpc.RpcError as error:
                    outcomes.append(str(error))

        with ThreadPoolExecutor(_UNWATCHED) as pool:
            for stub in stubs:
                pool.submit(call, stub)
            try:
                wait_until(lambda: len(outcomes) > 10 * _UNWATCHED, what="the first answers")
                status = gateways[0].stop()
                ended = len(outcomes)
                wait_until(lambda: len(outcomes) > ended + 10 * _UNWATCHED, what="later answers")
            finally:
                stop.set()
    failed = [outcome for outcome in outcomes if outcome]
    row.details = (
        f"{len(outcomes):,} calls over {_UNWATCHED} channels that retry on UNAVAILABLE: "
        f"{len(failed)} failed, exit status {status}"
    )
    row.check(not failed, f"{len(failed)} calls failed: {failed[:1]}")
    row.check(status == 0, f"the gateway exited with status {status}")
    return row


def overloaded_gateway(folder: Path) -> Row:
    """Shuts down an overloaded gateway: every call ends with an answer or a reason."""
    row, calls, stop = Row("overloaded gateway shut down"), Calls(), threading.Event()
    messages = [
        pb.RecommendRequest(
            subject=types_pb2.Subject(ratings=[types_pb2.Rating(item_id=f"i{n}", stars=4.0)])
        ).SerializeToString()
        for n in range(ITEMS)
    ]
    with two_gateways(folder) as gateways:
        address = gateways[0].address
        peak = run_load(LoadPlan(address, RECOMMEND_PATH, 32, seconds=2.0), messages, folder)
        rate = _OVERLOAD * peak.full_per_s
        plan = OpenPlan(address, RECOMMEND_PATH, rate, _OVERLOADED_S)
        users = threading.Thread(target=_threads, args=(_target(gateways), stop, calls))
        with ThreadPoolExecutor(1) as pool:
            users.start()
            load = pool.submit(run_load, plan, messages, folder)
            try:
                time.sleep(_OVERLOADED_S / 2)
                status = gateways[0].stop()
                offered = load.result()
            finally:
                stop.set()
                users.join()
    refused = offered.errors.get(_UNAVAILABLE, 0)
    cancelled = offered.errors.get(_CANCELLED, 0)
    row.details = (
        f"{rate:,.0f} calls per second of others ({_OVERLOAD:g} times the peak): {refused} ended "
        f"with UNAVAILABLE, {cancelled} with CANCELLED; users: {len(calls.seconds):,} answered, "
        f"{len(calls.errors)} failed, exit status {status}"
    )
    row.check(
        not calls.errors, f"{len(calls.errors)} of the users' calls failed: {calls.errors[:1]}"
    )
    row.check(not cancelled, f"{cancelled} calls were cancelled without a reason")
    row.check(status == 0, f"the gateway exited with status {status}")
    return row


def _threads(target: str, stop: threading.Event, calls: Calls) -> None:
    """Calls from four threads, one of which makes longer pauses between its calls."""

    def user(number: int) -> None:
        while not stop.wait(0.3 if number == 0 else 0.02):
            start = time.monotonic()
            try:
                client.recommend(f"nobody-{number}", page_size=10)
            except marquee.MarqueeError as error:
                calls.errors.append(repr(error))
            else:
                calls.seconds.append(time.monotonic() - start)

    with marquee.Client(target) as client:
        threads = [threading.Thread(target=user, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _tasks(target: str, stop: threading.Event, calls: Calls) -> None:
    """Calls from four tasks, one of which makes longer pauses between its calls."""

    async def user(client: marquee.AsyncClient, number: int) -> None:
        while not stop.is_set():
            start = time.monotonic()
            try:
                await client.recommend(f"nobody-{number}", page_size=10)
            except marquee.MarqueeError as error:
                calls.errors.append(repr(error))
            else:
                calls.seconds.append(time.monotonic() - start)
            await asyncio.sleep(0.3 if number == 0 else 0.02)

    async def users() -> None:
        async with marquee.AsyncClient(target) as client:
            await asyncio.gather(*(user(client, number) for number in range(4)))

    asyncio.run(users())


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
    parser.add_argument("--freezes", type=int, default=5, help="freezes for each kind of client")
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
            ]
        for number in range(4):
            (folder / str(number)).mkdir()
        rows += frozen_gateways(folder / "0", arguments.freezes)
        rows.append(drained_gateway(folder / "1", 5_000))
        rows.append(unwatched_gateway(folder / "2"))
        rows.append(overloaded_gateway(folder / "3"))
    table = [[row.fault, row.details, "; ".join(row.problems) or "survived"] for row in rows]
    sys.stdout.write(render(["fault", "what happened", "verdict"], table, "lll") + "\n")
    return int(any(row.problems for row in rows))


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
