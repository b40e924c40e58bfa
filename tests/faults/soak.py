"""A long run of an overloaded system, with a fault every few seconds.

    python -m faults.soak --minutes 30

A generator offers two gateways and two CF services, connected by mutual TLS, 1.5 times the peak
throughput of one gateway. At the same time, users call through the client library, which balances
load and retries; the table shows how their calls ended during each kind of fault. Calls that a
server refuses because of overload count as shed, not as failed. One process of each kind is never
restarted: its memory, file descriptors and threads must not grow.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CalledProcessError

import psutil

import marquee
from bench.context import RECOMMEND_PATH
from bench.load import LoadPlan
from bench.open_loop import OpenPlan
from faults.callers import Callers
from faults.fault_table import Calls, Row, report
from faults.load_process import run_load
from faults.release_faults import fill_disk, nan_weights, small_disk
from faults.release_system import republished
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from threads import thread_count
from toy.certificates import Authority
from toy.release import ITEMS, USERS, publish_toy
from toy.waiting import wait_until

_OVERLOAD = 1.5
_PEAK_S, _SLICE_S, _FROZEN_S, _SAMPLE_S = 4.0, 5.0, 3.0, 1.0
_MAX_GROWTH = 0.02
_TOLERANCE = {"descriptors": 2, "threads": 0}
# Growth is measured after this share of the run, when the caches are full: from the first to the
# last of several parts of equal length.
_SETTLED, _PARTS = 0.3, 4
# Small caches, so that they are full when the measurement starts.
_CACHE_MIB = "1"


@dataclass
class _Sample:
    at: float
    process: str
    resident: int
    descriptors: int
    threads: int


@dataclass
class _Kind:
    """The outcome of all faults of one kind."""

    calls: Calls = field(default_factory=Calls)
    times: int = 0
    recovery_s: float = 0.0
    problems: list[str] = field(default_factory=list)


class Soak:
    """The system under test, with a method for each kind of fault."""

    def __init__(self, folder: Path, cache: Path | None, seed: int) -> None:
        """Starts the processes.

        Args:
            folder: An empty folder.
            cache: A small file system for the servers' copies; None if there is none.
            seed: Seed of the order of the faults.
        """
        self.folder = folder
        self.small_disk = cache
        self.cache = cache or folder / "cache"
        self.rng = random.Random(seed)  # noqa: S311 - not for cryptography
        self.store = ReleaseStore(str(folder / "store"))
        self._published = 0
        self.store.promote(self.publish().release_id)
        self.authority = Authority.create(folder)
        self.issue()
        self.services: dict[str, ServiceProcess] = {}
        try:
            for name in ("cf-1", "cf-2", "gateway-1", "gateway-2"):
                self.start(name)
            for place in (1, 2):
                self.services[f"gateway-{place}"].wait_until_serving()
        except BaseException:
            self.kill()
            raise
        self.gateways = [self.services[f"gateway-{n}"].address for n in (1, 2)]
        self.samples: list[_Sample] = []

    def issue(self) -> None:
        """Issues certificates for gateways and CF services, replacing earlier ones."""
        self.authority.issue("127.0.0.1", "gateway.test", file="gateway")
        self.authority.issue("127.0.0.1", "cf.test", file="cf")

    def start(self, name: str, listen: str = "127.0.0.1:0") -> None:
        """Starts a process, and adds it to `services`."""
        shared = {"store": self.store.url, "cache-dir": str(self.cache), "scrub-interval": "2"}
        shared["poll-interval"] = "0.2"
        ca = str(self.authority.certificate)
        if name.startswith(CF):
            options = {
                **shared,
                "tls-certificate": str(self.folder / "cf.pem"),
                "tls-key": str(self.folder / "cf.key"),
                "tls-client-ca": ca,
            }
            kind = CF
        else:
            backends = ",".join(self.services[f"cf-{n}"].address for n in (1, 2))
            options = {
                **shared,
                "cf-target": f"ipv4:{backends}",
                "backend-ca": ca,
                "backend-cert": str(self.folder / "gateway.pem"),
                "backend-key": str(self.folder / "gateway.key"),
                "answer-cache-mib": _CACHE_MIB,
                "list-cache-mib": _CACHE_MIB,
            }
            kind = GATEWAY
        self.services[name] = ServiceProcess(kind, options, self.folder / f"{name}.log", listen)

    def kill(self) -> None:
        """Kills all processes."""
        for process in self.services.values():
            process.kill()

    def publish(self) -> Manifest:
        """Publishes another release."""
        self._published += 1
        folder = self.folder / f"made-{self._published}"
        return publish_toy(self.store, folder, seed=self._published, servable=True)

    def in_service(self, release_id: str) -> bool:
        """Returns whether all gateways serve a release."""
        for address in self.gateways:
            try:
                with marquee.Client(address, timeout=10.0, health_check=False) as client:
                    release = client.status().release
            except marquee.MarqueeError:
                return False
            if release is None or release.release_id != release_id:
                return False
        return True

    def good_release(self) -> None:
        """Promotes a new release."""
        new = self.publish().release_id
        self.store.promote(new)
        wait_until(lambda: self.in_service(new), what="serving the new release")

    def bad_release(self) -> None:
        """Promotes a release with NaN in its weights, bypassing all checks, and rolls it back."""
        bad = republished(self.store, self.publish(), nan_weights)
        self.store.promote(bad.release_id, forced=True)
        time.sleep(_FROZEN_S)
        back = self.store.rollback().release_id
        wait_until(lambda: self.in_service(back), what="serving the previous release")

    def killed_cf(self) -> None:
        """Kills and restarts a CF service."""
        self._restart("cf-2", lambda process: process.kill())

    def killed_gateway(self) -> None:
        """Kills and restarts a gateway."""
        self._restart("gateway-2", lambda process: process.kill())

    def terminated_cf(self) -> None:
        """Terminates and restarts a CF service."""
        self._restart("cf-2", self._stopped)

    def terminated_gateway(self) -> None:
        """Terminates and restarts a gateway."""
        self._restart("gateway-2", self._stopped)

    def frozen_cf(self) -> None:
        """Freezes a CF service for some seconds."""
        self._freeze(self.rng.choice(("cf-1", "cf-2")))

    def frozen_gateway(self) -> None:
        """Freezes a gateway for some seconds."""
        self._freeze(self.rng.choice(("gateway-1", "gateway-2")))

    def renewed_certificates(self) -> None:
        """Renews all certificates, which the servers reload automatically."""
        self.issue()
        time.sleep(_SLICE_S)

    def full_disk(self) -> None:
        """Promotes a release while the cache's disk is full, then frees space."""
        filler = self.cache / "filler"
        fill_disk(filler)
        new = self.publish().release_id
        self.store.promote(new)
        time.sleep(_FROZEN_S)
        filler.unlink()
        wait_until(lambda: self.in_service(new), what="serving the release once there is space")

    def faults(self) -> list[Callable[[], None]]:
        """Returns the kinds of faults that can be caused on this machine."""
        found = [self.good_release, self.bad_release, self.renewed_certificates]
        found += [self.killed_cf, self.killed_gateway, self.terminated_cf, self.terminated_gateway]
        found += [self.frozen_cf, self.frozen_gateway]
        return [*found, self.full_disk] if self.small_disk is not None else found

    def sample(self) -> None:
        """Records the resource usage of the processes that are never restarted."""
        for name in ("cf-1", "gateway-1"):
            process = psutil.Process(self.services[name].pid)
            with process.oneshot():
                self.samples.append(
                    _Sample(
                        time.monotonic(),
                        name,
                        process.memory_info().rss,
                        process.num_fds(),
                        thread_count(process.pid),
                    )
                )

    def _restart(self, name: str, end: Callable[[ServiceProcess], None]) -> None:
        process = self.services[name]
        end(process)
        time.sleep(1.0)
        self.start(name, process.address)
        if process.service == GATEWAY:
            self.services[name].wait_until_serving()

    def _stopped(self, process: ServiceProcess) -> None:
        status = process.stop()
        assert status == 0, f"the {process.service} process exited with status {status}"

    def _freeze(self, name: str) -> None:
        self.services[name].suspend()
        try:
            time.sleep(_FROZEN_S)
        finally:
            self.services[name].resume()


def _messages() -> list[bytes]:
    """Makes distinct serialised requests of visitors."""
    requests = []
    for number in range(500):
        ratings = [
            types_pb2.Rating(
                item_id=f"i{(number * 7 + n * 3) % ITEMS}", stars=1.0 + (number + n) % 5
            )
            for n in range(10)
        ]
        request = pb.RecommendRequest(subject=types_pb2.Subject(ratings=ratings), page_size=20)
        requests.append(request.SerializeToString())
    return requests


@contextmanager
def _generators(soak: Soak, rate: float) -> Iterator[None]:
    """Offers each gateway half of a rate until the context ends."""
    stopped = threading.Event()
    messages = _messages()

    def offer(address: str, folder: Path) -> None:
        folder.mkdir()
        while not stopped.is_set():
            try:
                run_load(OpenPlan(address, RECOMMEND_PATH, rate / 2, _SLICE_S), messages, folder)
            except CalledProcessError:  # The gateway is down.
                stopped.wait(0.2)

    threads = [
        threading.Thread(target=offer, args=(address, soak.folder / f"load-{place}"))
        for place, address in enumerate(soak.gateways)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _peak(soak: Soak) -> float:
    """Measures the peak throughput of one gateway in full answers per second."""
    folder = soak.folder / "peak"
    folder.mkdir()
    plans = [LoadPlan(soak.gateways[0], RECOMMEND_PATH, n, seconds=_PEAK_S) for n in (8, 16, 32)]
    return max(run_load(plan, _messages(), folder).full_per_s for plan in plans)


def run(soak: Soak, seconds: float, rate: float, timeout_s: float) -> list[Row]:
    """Causes faults in random order until the time is up.

    Args:
        soak: The system.
        seconds: Duration of the run.
        rate: Calls per second offered to both gateways together.
        timeout_s: Deadline of the users' calls in seconds.

    Returns:
        A row for each kind of fault, and one for the growth of the processes.
    """
    kinds: dict[str, _Kind] = {}
    users, items = [f"u{n}" for n in range(USERS)], [f"i{n}" for n in range(ITEMS)]
    callers = Callers(
        f"ipv4:{','.join(soak.gateways)}", users, items, 2, timeout_s, 0.02, health_check=True
    )
    stop_sampling = threading.Event()
    start = time.monotonic()

    def sample() -> None:
        while not stop_sampling.wait(_SAMPLE_S):
            soak.sample()

    sampler = threading.Thread(target=sample)
    order: list[Callable[[], None]] = []
    with callers, _generators(soak, rate):
        sampler.start()
        try:
            while time.monotonic() < start + seconds:
                if not order:
                    order = soak.faults()
                    soak.rng.shuffle(order)
                fault = order.pop()
                kind = kinds.setdefault(fault.__name__.replace("_", " "), _Kind())
                begin = time.monotonic()
                try:
                    fault()
                except AssertionError as error:
                    kind.problems.append(str(error))
                end = time.monotonic()
                time.sleep(_SLICE_S)
                found = callers.between(begin, time.monotonic())
                kind.times += 1
                kind.recovery_s = max(kind.recovery_s, callers.recovered_after(end))
                kind.calls = kind.calls.plus(found)
        finally:
            stop_sampling.set()
            sampler.join()
    rows = [_row(name, kind) for name, kind in sorted(kinds.items())]
    return [*rows, _growth(soak.samples, start, time.monotonic())]


def _row(name: str, kind: _Kind) -> Row:
    calls = kind.calls
    details = f"caused {kind.times} times; {calls.shed} calls shed"
    row = Row(name, details, kind.problems, calls, kind.recovery_s)
    row.check(calls.failed == 0, f"{calls.failed} failed: {calls.error}")
    row.check(calls.total > 0, "no call ended")
    return row


def _growth(samples: list[_Sample], start: float, end: float) -> Row:
    """Compares resource usage at the end with that once the caches were full.

    The details list the medians of all parts. Memory that keeps growing is a leak; memory that
    stops growing was needed at a peak, and the allocator has not returned it.
    """
    row = Row("growth")
    details = []
    length = (1 - _SETTLED) * (end - start) / _PARTS
    begins = [end - length * (_PARTS - part) for part in range(_PARTS)]
    for name in sorted({sample.process for sample in samples}):
        own = [sample for sample in samples if sample.process == name]
        for what in ("resident", "descriptors", "threads"):
            medians = [
                statistics.median(getattr(s, what) for s in own if begin <= s.at < begin + length)
                for begin in begins
            ]
            before, after = medians[0], medians[-1]
            growth = after / before - 1
            shown = [f"{m / 2**20:.1f}" if what == "resident" else f"{m:.0f}" for m in medians]
            unit = " MiB" if what == "resident" else ""
            details.append(f"{name} {what} {', '.join(shown)}{unit} ({growth:+.1%})")
            holds = growth <= _MAX_GROWTH or after - before <= _TOLERANCE.get(what, 0)
            row.check(holds, f"{name}: {what} grew by {growth:.1%}")
    row.details = "; ".join(details)
    return row


def main() -> int:
    """Runs the soak test; the exit status is 0 if all faults were survived without growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="duration in minutes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the faults")
    parser.add_argument("--timeout", type=float, default=5.0, help="users' deadline in seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "small") as disk:
        folder = Path(name) / "system"
        folder.mkdir()
        soak = Soak(folder, disk, arguments.seed)
        try:
            peak = _peak(soak)
            sys.stdout.write(f"peak {peak:.0f}/s, offered {_OVERLOAD * peak:.0f}/s\n")
            sys.stdout.flush()
            rows = run(soak, 60 * arguments.minutes, _OVERLOAD * peak, arguments.timeout)
            ended = {name: process.stop() for name, process in soak.services.items()}
            rows[-1].check(not any(ended.values()), f"exit statuses {ended}")
        finally:
            soak.kill()
    return report(rows)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
