"""A small release of made-up models, and the three services over it, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import pytest_asyncio
import trustme
from hypothesis import settings as hypothesis_settings

from marquee_core.arrays import Float32, Int32, load_array, save_array
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.release.contents import model_folder, save_data
from marquee_core.release.ensemble import Blend, BlendPair, Ensemble, backend_subsets
from marquee_core.release.manifest import (
    DataEntry,
    Manifest,
    ModelEntry,
    digest_of,
    hash_folder,
    new_release_id,
)
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import LoadScorer, NeighbourEvidence, RatedEvidence, ReleaseData
from marquee_services.gateway.main import Gateway
from marquee_services.gateway.main import start as start_gateway
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.main import start as start_scoring
from marquee_services.scoring.settings import CFSettings
from marquee_services.server.follower import ReleaseFollower
from marquee_services.server.runtime import BoundServer

# Shared machines stall; how long an example takes is not what the tests are about.
hypothesis_settings.register_profile("marquee", deadline=None)
hypothesis_settings.load_profile("marquee")

T = TypeVar("T")

USERS, ITEMS, DIMENSIONS = 40, 120, 4
GENRES = ("Comedy", "Drama", "War")
WAIT_S = 20.0


class ToyScorer:
    """Adds the product of the mean vector of what a user rated and an item's vector."""

    def __init__(self, vectors: Float32, data: ReleaseData, output: Output) -> None:
        self._vectors = vectors
        self._data = data
        self.output = output

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """As `Scorer.score`."""
        sums = np.zeros((len(profiles), self._vectors.shape[1]))
        residuals = self._data.baseline.residuals(profiles)
        np.add.at(sums, profiles.rows, residuals[:, None] * self._vectors[profiles.items])
        users = sums / np.maximum(profiles.counts, 1)[:, None]
        vectors = self._vectors if items is None else self._vectors[items]
        scores = users @ vectors.T
        if self.output is Output.STARS:
            scores = scores + self._data.baseline.score(profiles, items)
        return scores.astype(np.float32)

    def similarities(self, item: int) -> Float32 | None:
        """As `Scorer.similarities`."""
        lengths = np.linalg.norm(self._vectors, axis=1)
        cosines = self._vectors @ self._vectors[item] / (lengths * lengths[item])
        clipped: Float32 = np.clip(cosines, -1, 1).astype(np.float32)
        return clipped

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """As `ExplainsByItems.rated_evidence`."""
        residuals = self._data.baseline.residuals(profile)
        found = []
        for item in items:
            products = self._vectors[profile.items] @ self._vectors[item]
            parts = (residuals * products / max(1, len(profile.items))).astype(np.float32)
            order = np.argsort(-np.abs(parts), kind="stable")[:count]
            found.append(
                RatedEvidence(
                    profile.items[order], products[order].astype(np.float32), parts[order]
                )
            )
        return found

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """As `ExplainsByNeighbours.neighbour_evidence`."""
        counts = np.bincount(self._data.matrix.items, minlength=ITEMS)
        return [NeighbourEvidence(int(counts[item]), 4.0, 0.25) for item in items]


def toy_loader(output: Output) -> LoadScorer:
    """Reads a toy model."""

    def load(folder: Path, data: ReleaseData) -> ToyScorer:
        vectors = load_array(folder / "vectors.npy", np.float32, (ITEMS, DIMENSIONS))
        return ToyScorer(vectors, data, output)

    return load


# By backend, the models and what their scores are.
TOY_MODELS = {
    "cf": {"item_cf": Output.STARS, "ease": Output.AFFINITY},
    "inference": {"mf": Output.STARS},
}
TOY_LOADERS = {
    backend: {name: toy_loader(output) for name, output in models.items()}
    for backend, models in TOY_MODELS.items()
}


def toy_data(seed: int) -> tuple[Vocabulary, Catalogue, ReleaseData]:
    """Users, items, and ratings of about a quarter of all pairs."""
    random = np.random.default_rng(seed)
    users = Vocabulary.of(f"u{n}" for n in range(USERS))
    items = Vocabulary.of(f"i{n}" for n in range(ITEMS))
    catalogue = Catalogue.of(
        items,
        [f"Film Number {n}" for n in range(ITEMS)],
        [0 if n % 10 == 0 else 1950 + n % 60 for n in range(ITEMS)],
        [[GENRES[n % 3]] + ([GENRES[(n + 1) % 3]] if n % 2 else []) for n in range(ITEMS)],
    )
    rated = np.argwhere(random.random((USERS, ITEMS)) < 0.25).astype(np.int32)
    stars = random.integers(1, 6, len(rated)).astype(np.float32)
    matrix = RatingsMatrix.of(rated[:, 0], rated[:, 1], stars, USERS, ITEMS)
    return users, catalogue, ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 3))


def toy_ensemble() -> Ensemble:
    """Blends for every subset of the backends."""
    pairs = {}
    for subset in backend_subsets(["cf", "inference"]):
        stars = {"baseline": 1.0}
        ranking = {"baseline": 0.5, "popularity": 0.25}
        for backend in subset:
            for name, output in TOY_MODELS[backend].items():
                ranking[name] = 1.0
                if output is Output.STARS:
                    stars[name] = 0.5
                    stars["baseline"] -= 0.5
        pairs[subset] = BlendPair(Blend(stars, 0.0), Blend(ranking, 0.125))
    return Ensemble(pairs)


def publish_toy(
    store: ReleaseStore, folder: Path, seed: int = 0, published: datetime | None = None
) -> Manifest:
    """Publishes a toy release; it is not promoted."""
    users, catalogue, data = toy_data(seed)
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(ITEMS, DIMENSIONS)).astype(np.float32)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    save_data(folder, users, catalogue, data, unit, toy_ensemble())
    for models in TOY_MODELS.values():
        for name in models:
            own = random.normal(size=(ITEMS, DIMENSIONS)).astype(np.float32)
            save_array(model_folder(folder, name) / "vectors.npy", own)
    files = hash_folder(folder)
    now = published or datetime.now(UTC) + timedelta(seconds=seed)
    entries = [
        ModelEntry(name, backend, output, digest_of(files, f"models/{name}/")[:12], {}, {})
        for backend, models in TOY_MODELS.items()
        for name, output in models.items()
    ]
    entries += [
        ModelEntry("baseline", "gateway", Output.STARS, "0" * 12, {}, {"test_mse": 1.0}),
        ModelEntry("popularity", "gateway", Output.AFFINITY, "0" * 12, {}, {}),
    ]
    manifest = Manifest(
        release_id=new_release_id(files, now),
        published_at=now.isoformat(),
        data=DataEntry(
            f"toy(seed={seed})",
            "0" * 64,
            USERS,
            ITEMS,
            data.matrix.rating_count,
            1.0,
            5.0,
            catalogue.genres,
        ),
        models=tuple(entries),
        evaluation={"ensemble_metrics": {"test_mse": 0.9}},
        library_versions={},
        files=files,
    )
    store.publish(folder, manifest)
    return manifest


async def until(condition: Callable[[], Any]) -> None:
    """Waits until a condition holds."""
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        await asyncio.sleep(0.01)


@dataclass
class Scoring:
    """A scoring server in this process."""

    bound: BoundServer
    follower: ReleaseFollower[Engine]
    settings: CFSettings
    task: asyncio.Task[None]

    async def stop(self, grace: float = 0.5) -> None:
        """Stops it."""
        self.task.cancel()
        await self.bound.stop(grace)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.bound.port}"


@dataclass
class Services:
    """The three services over a toy release, in this process.

    Attributes:
        store: The release store.
        folder: For scratch.
        first: The release in production at the start.
        scoring: The scoring servers by backend.
        gateway: The gateway.
    """

    store: ReleaseStore
    folder: Path
    first: Manifest
    scoring: dict[str, Scoring] = field(default_factory=dict)
    gateway: Gateway = None  # type: ignore[assignment]  # set once it has started

    @property
    def address(self) -> str:
        """Where the gateway listens."""
        return f"127.0.0.1:{self.gateway.bound.port}"

    async def start_backend(self, backend: str, port: int = 0) -> Scoring:
        """Starts a scoring server."""
        settings = CFSettings(
            store=self.store.url,
            listen=f"127.0.0.1:{port}",
            cache_dir=str(self.folder / "cache"),
            poll_interval=0.05,
        )
        bound, follower = await start_scoring(settings, backend, TOY_LOADERS[backend])
        task = asyncio.create_task(follower.follow())
        self.scoring[backend] = Scoring(bound, follower, settings, task)
        return self.scoring[backend]

    async def start_gateway(self, **changes: Any) -> Gateway:
        """Starts a gateway over the scoring servers."""
        settings = GatewaySettings(
            store=self.store.url,
            listen="127.0.0.1:0",
            cache_dir=str(self.folder / "cache"),
            poll_interval=0.05,
            probe_interval=0.05,
            backend_timeout=2.0,
            cf_target=self.scoring["cf"].address,
            inference_target=self.scoring["inference"].address,
        )
        return await start_gateway(replace(settings, **changes))

    async def publish(self, seed: int, promote: bool = True) -> Manifest:
        """Publishes another toy release, and promotes it."""
        manifest = publish_toy(self.store, self.folder / f"made{seed}", seed)
        if promote:
            self.store.promote(manifest.release_id)
        return manifest

    async def until(self, condition: Callable[[], Any]) -> None:
        """Waits until a condition holds."""
        await until(condition)

    async def until_full(self, gateway: Gateway | None = None) -> None:
        """Waits until a gateway serves with all backends."""
        gateway = gateway or self.gateway
        wanted = self.store.production()
        assert wanted is not None
        await until(
            lambda: all(
                backend.healthy and wanted.release_id in backend.releases
                for backend in gateway.backends
            )
        )
        await until(lambda: gateway.releases.loaded and not gateway.releases.pending_reason)
        await until(lambda: gateway.releases.serving.release_id == wanted.release_id)

    async def stop(self) -> None:
        """Stops all."""
        await self.gateway.stop(0.5)
        for scoring in self.scoring.values():
            await scoring.stop()


@asynccontextmanager
async def toy_services(folder: Path) -> AsyncIterator[Services]:
    """Starts and stops the three services."""
    store = ReleaseStore(str(folder / "store"))
    first = publish_toy(store, folder / "made")
    store.promote(first.release_id)
    running = Services(store, folder, first)
    for backend in TOY_MODELS:
        await running.start_backend(backend)
    await until(lambda: all(s.follower.releases for s in running.scoring.values()))
    running.gateway = await running.start_gateway()
    await running.until_full()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """The three services, ready."""
    async with toy_services(tmp_path) as running:
        yield running


class BackgroundLoop:
    """An event loop in a thread of its own, for servers that tests of threads call."""

    def __init__(self) -> None:
        """Starts the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there, and waits for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def background_loop() -> Iterator[BackgroundLoop]:
    """An event loop for servers of the session."""
    loop = BackgroundLoop()
    yield loop
    loop.stop()


@pytest.fixture(scope="session")
def background_services(
    background_loop: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """The three services for the session; tests must leave them as they are."""
    running = toy_services(tmp_path_factory.mktemp("services"))
    yield background_loop.run(running.__aenter__())
    background_loop.run(running.__aexit__(None, None, None))


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests' own.

    Attributes:
        folder: Where its files are.
        certificate: Its certificate.
    """

    folder: Path
    certificate: Path
    _authority: trustme.CA

    def issue(self, *names: str) -> tuple[Path, Path]:
        """A certificate for host names and addresses, and its key."""
        issued = self._authority.issue_cert(*names)
        certificate, key = self.folder / f"{names[0]}.pem", self.folder / f"{names[0]}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority, made once."""
    folder = tmp_path_factory.mktemp("authority")
    made = trustme.CA()
    made.cert_pem.write_to_path(folder / "ca.pem")
    return Authority(folder, folder / "ca.pem", made)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port that nothing listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        return port

    return find


@pytest_asyncio.fixture
async def channel(services: Services) -> AsyncIterator[grpc.aio.Channel]:
    """A plain channel to the gateway."""
    async with grpc.aio.insecure_channel(services.address) as opened:
        yield opened


async def failure_of(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    """The error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the contract tests; see tests/contract."""
    group = parser.getgroup("contract", "a server to hold to the contract, instead of our own")
    group.addoption("--address", help="host:port of a gateway or of a proxy before it")
    group.addoption("--ca", help="PEM file of the authority of its certificate; none: plaintext")
    group.addoption("--user", help="the id of a user that its release knows")
