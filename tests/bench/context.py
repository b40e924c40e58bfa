"""What the sections measure with."""

from __future__ import annotations

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
from marquee_services.catalogue import Vocabulary
from marquee_services.release.manifest import Manifest
from marquee_services.release.store import ReleaseStore

RECOMMEND_PATH = "/marquee.v1.RecommenderService/Recommend"
PAGE_SIZE = 20


@dataclass
class Context:
    """What the sections measure with.

    Attributes:
        config: How much is measured.
        store: The release store.
        manifest: The release in it.
        folder: Where logs and results go.
        generator: Makes load.
        services: The services.
        user_ids: Users to ask for, in random order.
        on_step: Called with the name of each measurement as it begins.
        notes: What the measurement at hand wants said; a section puts it into its table.
    """

    config: BenchConfig
    store: ReleaseStore
    manifest: Manifest
    folder: Path
    generator: Generator
    services: Services
    user_ids: list[str]
    on_step: Callable[[str], None]
    notes: list[str] = field(default_factory=list)

    @property
    def requests(self) -> list[bytes]:
        """Recommend requests of all users: 20 items, what they have seen left out."""
        return [
            pb.RecommendRequest(
                subject=types_pb2.Subject(user_id=user_id), page_size=PAGE_SIZE
            ).SerializeToString()
            for user_id in self.user_ids
        ]

    def plan(self, in_flight: int, seconds: float) -> LoadPlan:
        """A plan of Recommend calls to the gateway."""
        return LoadPlan(
            self.services.gateway.address,
            RECOMMEND_PATH,
            in_flight,
            warm_s=self.config.warm_s,
            seconds=seconds,
        )

    def recommend(self, plan: LoadPlan) -> Load:
        """Runs a plan against the gateway, and notes what went wrong."""
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
        """Notes faults, and a figure that the load generator bounds."""
        if load.faults:
            self.note(f"{what}: faults: {load.fault_text()}")
        if load.client_share > CLIENT_BOUND_SHARE:
            self.note(f"{what}: client-bound ({load.client_share:.0%} of a core)")

    def note(self, text: str) -> None:
        """Notes something once."""
        if text not in self.notes:
            self.notes.append(text)

    def take_notes(self) -> list[str]:
        """What was noted since the last time."""
        taken, self.notes = self.notes, []
        return taken


def pick_users(store: ReleaseStore, manifest: Manifest, count: int, seed: int) -> list[str]:
    """Ids of random users of a release."""
    folder = store.open(manifest, lambda path: path.startswith("data/"), Path())
    users = Vocabulary.load(folder / "data/users.npy")
    chosen = np.random.default_rng(seed).permutation(len(users))[:count]
    return users.ids(chosen)


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return float(np.median(values)) if values else float("nan")
