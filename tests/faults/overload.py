"""Overloads real services, and compares their goodput and latency with the peak and without load.

    python -m faults.overload --store releases-store
    python -m faults.overload --store releases-store --proxy          # behind the overload proxy
    python -m faults.overload --store releases-store --proxy 24:32:4 28:32:4

One run measures the unloaded latency, the peak throughput, and then loads that are multiples of the
peak. The peak and the unloaded latency are always those of the gateway without the proxy.
`faults.load_process` describes the generator.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import marquee
from bench.computed_requests import computed_requests
from bench.context import RECOMMEND_PATH, pick_users
from bench.load import LoadPlan
from bench.open_loop import OpenPlan
from bench.processes import Services
from faults.load_process import Result, run_load
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.settings import GatewaySettings
from proxies import Limits, overload_proxy
from termination import interrupt_on_sigterm

_IN_FLIGHT = (4, 8, 16, 32)
_UNLOADED_SHARE = 0.1
# Targets: goodput relative to the peak, and p99 relative to the unloaded p99.
_MIN_GOODPUT, _MAX_LATENCY = 0.8, 3.0
_RECOVERY_S, _RECOVERY_CALLS = 1.0, 20
_STATUS_INTERVAL_S = 0.1


@dataclass
class StatusCalls:
    """The GetStatus calls made during a load.

    Attributes:
        calls: Number of calls.
        failed: Number of calls that failed.
        longest_s: Duration of the longest call in seconds.
    """

    calls: int = 0
    failed: int = 0
    longest_s: float = 0.0


@contextmanager
def status_calls(address: str) -> Iterator[StatusCalls]:
    """Calls GetStatus at intervals from a separate thread, and yields the results so far."""
    found, stop = StatusCalls(), threading.Event()

    def poll() -> None:
        with marquee.Client(address, timeout=5.0) as client:
            while not stop.wait(_STATUS_INTERVAL_S):
                start = time.monotonic()
                found.calls += 1
                try:
                    client.status()
                except marquee.MarqueeError:
                    found.failed += 1
                found.longest_s = max(found.longest_s, time.monotonic() - start)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def measure_peak(run: Callable[[LoadPlan], Result], address: str, seconds: float) -> Result:
    """Measures several numbers of calls in flight, and returns the one with the highest goodput."""
    plans = [LoadPlan(address, RECOMMEND_PATH, n, seconds=seconds) for n in _IN_FLIGHT]
    return max((run(plan) for plan in plans), key=lambda result: result.full_per_s)


def has_recovered(address: str, messages: Sequence[bytes]) -> bool:
    """Returns whether every call is answered in full a second after the load has ended."""
    time.sleep(_RECOVERY_S)
    with marquee.Client(address, timeout=5.0) as client:
        for message in messages[:_RECOVERY_CALLS]:
            subject = pb.RecommendRequest.FromString(message).subject
            try:
                answer = client.recommend(
                    subject.user_id or None,
                    ratings={rating.item_id: rating.stars for rating in subject.ratings},
                )
            except marquee.MarqueeError:
                return False
            if answer.source.degraded:
                return False
    return True


def measure(
    kinds: Mapping[str, Sequence[bytes]],
    factors: Sequence[float],
    address: str,
    proxies: Mapping[str, str],
    folder: Path,
    seconds: float,
) -> Iterator[tuple[str, bool]]:
    """Measures each kind of request.

    Args:
        kinds: Serialised Recommend requests by kind.
        factors: Loads as multiples of the peak.
        address: The gateway's address.
        proxies: The addresses of the proxies to overload instead of the gateway, by their limits.
        folder: Folder for temporary files.
        seconds: Duration of each load.

    Yields:
        A line of the table, and whether it meets the targets.
    """
    for kind, messages in kinds.items():

        def run(plan: OpenPlan | LoadPlan, messages: Sequence[bytes] = messages) -> Result:
            return run_load(plan, messages, folder)

        highest = measure_peak(run, address, seconds)
        rate = max(1.0, _UNLOADED_SHARE * highest.full_per_s)
        unloaded = run(OpenPlan(address, RECOMMEND_PATH, rate, max(seconds, 100 / rate)))
        yield (
            f"{kind}: unloaded p99 {unloaded.p99_ms:.0f} ms; peak {highest.full_per_s:.0f}/s, "
            f"p99 {highest.p99_ms:.0f} ms",
            True,
        )
        targets = proxies or {"": address}
        for (limits, target), factor in itertools.product(targets.items(), factors):
            through = f" through the proxy ({limits})" if limits else ""
            plan = OpenPlan(
                target, RECOMMEND_PATH, factor * highest.full_per_s, seconds + 1, skip_s=1.0
            )
            with status_calls(target) as status:
                loaded = run(plan)
            recovered = has_recovered(target, messages)
            goodput = loaded.full_per_s / highest.full_per_s
            latency = loaded.p99_ms / unloaded.p99_ms
            good = goodput >= _MIN_GOODPUT and latency <= _MAX_LATENCY
            good = good and recovered and not status.failed
            yield (
                f"  {factor:g} times the peak{through}: goodput {goodput:.0%}, "
                f"p99 {loaded.p99_ms:.0f} ms ({latency:.1f} times unloaded), "
                f"degraded {loaded.degraded}, p99 of refusals {loaded.refused_p99_ms:.0f} ms, "
                f"errors {loaded.errors}, GetStatus: {status.failed} of {status.calls} failed, "
                f"longest {status.longest_s:.2f} s, "
                f"{'recovered' if recovered else 'not recovered'} after {_RECOVERY_S:g} s, "
                f"generator at most {loaded.behind_ms:.0f} ms late: "
                f"{'met' if good else 'MISSED'}",
                good,
            )


def requests(store: ReleaseStore) -> dict[str, list[bytes]]:
    """Makes requests of visitors and of known users for the release in production."""
    production = store.production()
    if production is None:
        raise SystemExit("the store has no release in production")
    manifest = store.manifest(production.release_id)
    visitors = computed_requests(store, manifest, 300, seed=0)["visitors with 30 ratings"]
    known = [
        pb.RecommendRequest(
            subject=types_pb2.Subject(user_id=user), page_size=20
        ).SerializeToString()
        for user in pick_users(store, manifest, 500, seed=0)
    ]
    return {"visitors": visitors, "known users": known}


def main() -> int:
    """Runs all loads and prints the table; the exit status is 0 if all targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="folder of the release store")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each load")
    parser.add_argument("--factors", type=float, nargs="+", default=[3.0, 10.0])
    parser.add_argument("--kinds", nargs="+", help="kinds of requests (default: all)")
    parser.add_argument(
        "--proxy",
        nargs="*",
        type=Limits.parse,
        metavar="COMPUTED:STORED:QUEUED",
        help="call through the overload proxy, with these limits (default: those of the manifests)",
    )
    arguments = parser.parse_args()
    all_good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Unlike the benchmark, this tests the default limits.
        defaults = GatewaySettings()
        options: dict[str, str | None] = {
            "min-in-flight": str(defaults.min_in_flight),
            "max-streams": str(defaults.max_streams),
        }
        if arguments.proxy is not None:
            options["no-connection-guard"] = None
        with ExitStack() as stack:
            services = stack.enter_context(Services(arguments.store, folder / "logs", options))
            proxies = {}
            for limits in arguments.proxy or [Limits.deployed()] * (arguments.proxy is not None):
                logs = folder / f"proxy-{limits}"
                logs.mkdir()
                proxy = stack.enter_context(overload_proxy(services.gateway.address, logs, limits))
                proxies[str(limits)] = proxy.address
            kinds = requests(ReleaseStore(arguments.store))
            lines = measure(
                {kind: kinds[kind] for kind in arguments.kinds or kinds},
                arguments.factors,
                services.gateway.address,
                proxies,
                folder,
                arguments.seconds,
            )
            for line, good in lines:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
                all_good &= good
    return int(not all_good)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
