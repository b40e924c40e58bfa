"""State shared by all sections: the services under test, the load generator and the notes."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.config import BenchConfig
from bench.echo import ECHO_PATH
from bench.generator import CLIENT_BOUND_SHARE, Generator, Load
from bench.load import LoadPlan
from bench.processes import EchoServer, Services
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.release.contents import load_users
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore

RECOMMEND_PATH = "/marquee.v1.RecommenderService/Recommend"
PAGE_SIZE = 20


@dataclass
class Context:
    """The services under test, the load generator, and the faults observed so far.

    Attributes:
        config: Size and duration of the measurements.
        store: The release store.
        manifest: The manifest of the release that is served.
        folder: Folder for logs and results.
        generator: The load generator.
        services: The services under test.
        user_ids: The users in the requests, in random order.
        on_step: Called with the name of each measurement when it starts.
        faults: Errors and incomplete answers of each measurement, counted by kind. A section
            reports them in the notes of its table.
        client_bound: The load generator's share of a core, for each measurement where it may have
            been the bottleneck.
    """

    config: BenchConfig
    store: ReleaseStore
    manifest: Manifest
    folder: Path
    generator: Generator
    services: Services
    user_ids: list[str]
    on_step: Callable[[str], None]
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    client_bound: dict[str, float] = field(default_factory=dict)

    @property
    def requests(self) -> list[bytes]:
        """A Recommend request for 20 unseen items for each user."""
        return self.requests_with(None)

    def requests_with(self, options: pb.RecommendOptions | None) -> list[bytes]:
        """Makes a Recommend request for 20 items with the given options for each user."""
        return [
            pb.RecommendRequest(
                subject=types_pb2.Subject(user_id=user_id), page_size=PAGE_SIZE, options=options
            ).SerializeToString()
            for user_id in self.user_ids
        ]

    def plan(self, in_flight: int, seconds: float) -> LoadPlan:
        """Makes a plan with Recommend calls to the gateway."""
        return LoadPlan(
            self.services.gateway.address,
            RECOMMEND_PATH,
            in_flight,
            warm_s=self.config.warm_s,
            seconds=seconds,
        )

    def recommend(self, plan: LoadPlan) -> Load:
        """Runs a plan of Recommend calls and records its faults."""
        load = self.generator.run(plan, self.requests, self.services.pids, "recommend")
        self.check(f"Recommend, {plan.in_flight} in flight", load)
        return load

    def echo(self, plan: LoadPlan, server: EchoServer) -> Load:
        """Runs the same load against the echo server."""
        plan = replace(plan, address=server.address, path=ECHO_PATH)
        load = self.generator.run(plan, self.requests, {"echo": server.pid})
        self.check(f"echo, {plan.in_flight} in flight", load)
        return load

    def check(self, what: str, load: Load) -> None:
        """Records a load's faults, and whether the load generator was the bottleneck."""
        if load.faults:
            found = self.faults.setdefault(what, Counter())
            found.update(load.fault_counts)
            found["full answers"] += load.full_answers
        if load.client_share > CLIENT_BOUND_SHARE:
            self.client_bound[what] = max(load.client_share, self.client_bound.get(what, 0.0))

    def take_notes(self) -> list[str]:
        """Returns the records since the last call as notes for a table, and clears them."""
        notes = [
            f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
            for what, counts in self.faults.items()
        ]
        notes += [
            f"{what}: client-bound, the load generator used {share:.0%} of a core"
            for what, share in self.client_bound.items()
        ]
        self.faults, self.client_bound = {}, {}
        return notes


def pick_users(store: ReleaseStore, manifest: Manifest, count: int, seed: int) -> list[str]:
    """Draws the ids of random users of a release."""
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as cache:
        users = load_users(store, manifest, Path(cache))
    chosen = np.random.default_rng(seed).permutation(len(users))[:count]
    return users.ids(chosen)


def median(values: Sequence[float]) -> float:
    """Returns the median; NaN if there are no values."""
    return float(np.median(values)) if values else float("nan")


def ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Divides each value by its reference; NaN where the reference is 0 (every call failed)."""
    return [
        value / reference if reference else float("nan")
        for value, reference in zip(values, references, strict=True)
    ]
