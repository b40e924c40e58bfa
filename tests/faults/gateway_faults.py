"""Frozen gateways and gateways that shut down: how one of two affects callers.

    python -m faults.gateway_faults

Prints a row for each fault, and fails if one of them is not survived.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np

import marquee
from bench.context import RECOMMEND_PATH
from bench.load import LoadPlan
from bench.open_loop import OpenPlan
from faults.callers import CALL_TIMEOUT_S
from faults.fault_table import Row, report_details
from faults.gateway_pair import Calls, call_from_tasks, call_from_threads, target_of, two_gateways
from faults.load_process import run_load
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from toy.release import ITEMS
from toy.waiting import wait_until

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


def frozen_gateways(folder: Path, freezes: int) -> list[Row]:
    """Repeatedly suspends one of two gateways, while clients with default settings call them."""
    with two_gateways(folder) as gateways:
        target = target_of(gateways)
        kinds = ("blocking client", call_from_threads), ("asyncio client", call_from_tasks)
        return [
            _frozen(f"one of two gateways frozen, {name}", gateways, target, users, freezes)
            for name, users in kinds
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
    with two_gateways(folder) as gateways, marquee.Client(target_of(gateways)) as client:
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
            channel = grpc.insecure_channel(target_of(gateways), options)
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
        users = threading.Thread(target=call_from_threads, args=(target_of(gateways), stop, calls))
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


def main() -> int:
    """Prints the table; the exit status is 0 if all faults were survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--freezes", type=int, default=5, help="freezes for each kind of client")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(4):
            (folder / str(number)).mkdir()
        rows = [
            *frozen_gateways(folder / "0", arguments.freezes),
            drained_gateway(folder / "1", 5_000),
            unwatched_gateway(folder / "2"),
            overloaded_gateway(folder / "3"),
        ]
    return report_details(rows)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
