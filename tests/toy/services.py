"""The gateway and both scoring services over a toy release, in the process of the test.

They listen on real sockets on the loopback interface.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import BACKENDS, CF, INFERENCE
from marquee_services.gateway.gateway import Gateway
from marquee_services.gateway.main import start as start_gateway
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.main import start as start_scoring
from marquee_services.scoring.settings import ScoringSettings
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.runtime import BoundServer
from marquee_services.standalone.main import start as start_standalone
from marquee_services.standalone.settings import StandaloneSettings
from toy.release import TOY_LOADERS, TOY_MODELS, publish_toy
from toy.waiting import WAIT_S, until

T = TypeVar("T")


@dataclass
class Scoring:
    """A running scoring server.

    Attributes:
        bound: The gRPC server and its port.
        follower: Loads the releases that the server scores with.
        settings: The settings that it was started with.
        task: Polls the release store.
    """

    bound: BoundServer
    follower: ReleaseFollower[Engine]
    settings: ScoringSettings
    task: asyncio.Task[None]

    async def stop(self, grace: float = 0.5) -> None:
        """Stop the server; calls in flight have `grace` seconds to end."""
        self.task.cancel()
        await self.bound.stop(grace)

    @property
    def address(self) -> str:
        """Return the server's host and port."""
        return f"127.0.0.1:{self.bound.port}"


@dataclass
class Services:
    """The three services over a toy release.

    Attributes:
        store: The release store.
        folder: A folder for temporary files.
        first: The release in production at the start.
        scoring: The scoring server of each backend.
        gateway: The gateway.
    """

    store: ReleaseStore
    folder: Path
    first: Manifest
    scoring: dict[str, Scoring] = field(default_factory=dict)
    gateway: Gateway = None  # type: ignore[assignment]  # set by toy_services

    @property
    def address(self) -> str:
        """Return the gateway's host and port."""
        return f"127.0.0.1:{self.gateway.bound.port}"

    async def start_backend(self, backend: str, port: int = 0, **changes: Any) -> Scoring:
        """Start the scoring server of a backend.

        Args:
            backend: The name of the backend.
            port: The port to listen on; 0 for any free one.
            changes: Settings that differ from those of the tests.
        """
        settings = ScoringSettings(
            store=self.store.url,
            listen=f"127.0.0.1:{port}",
            cache_dir=str(self.folder / "cache"),
            poll_interval=0.05,
        )
        settings = replace(settings, **changes)
        bound, follower = await start_scoring(settings, backend, TOY_LOADERS[backend])
        task = asyncio.create_task(follower.follow())
        self.scoring[backend] = Scoring(bound, follower, settings, task)
        return self.scoring[backend]

    async def start_gateway(self, **changes: Any) -> Gateway:
        """Start a gateway in front of the scoring servers.

        Args:
            changes: Settings that differ from those of the tests.
        """
        settings = GatewaySettings(
            store=self.store.url,
            listen="127.0.0.1:0",
            cache_dir=str(self.folder / "cache"),
            poll_interval=0.05,
            probe_interval=0.05,
            backend_timeout=WAIT_S,
            # Tests other than those of overload may make many concurrent calls on a slow machine.
            min_computing=256,
            cf_target=self.scoring[CF].address,
            inference_target=self.scoring[INFERENCE].address,
        )
        return await start_gateway(replace(settings, **changes))

    async def publish(
        self, seed: int, promote: bool = True, backends: Sequence[str] = BACKENDS
    ) -> Manifest:
        """Publish another toy release, and promote it unless `promote` is false."""
        manifest = publish_toy(self.store, self.folder / f"made{seed}", seed, backends=backends)
        if promote:
            self.store.promote(manifest.release_id)
        return manifest

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition holds; see the function `until`."""
        await until(condition)

    async def until_full(self, gateway: Gateway | None = None) -> None:
        """Wait until a gateway serves the release in production with all backends."""
        gateway = gateway or self.gateway
        production = self.store.production()
        assert production is not None
        await until(
            lambda: all(
                backend.healthy and production.release_id in backend.releases
                for backend in gateway.backends
            )
        )
        await until(lambda: gateway.releases.loaded and not gateway.releases.pending_reason)
        await until(lambda: gateway.releases.serving.release_id == production.release_id)
        await until(lambda: gateway.bound.is_serving)

    async def stop(self) -> None:
        """Stop the gateway and the scoring servers."""
        await self.gateway.stop(0.5)
        for scoring in self.scoring.values():
            await scoring.stop()


@asynccontextmanager
async def toy_services(
    folder: Path, release_backends: Sequence[str] = BACKENDS
) -> AsyncIterator[Services]:
    """Run the three services over a new toy release.

    Args:
        folder: An empty folder for the release store, the caches and temporary files.
        release_backends: The backends whose models the release holds.
    """
    store = ReleaseStore(str(folder / "store"))
    first = publish_toy(store, folder / "made", backends=release_backends)
    store.promote(first.release_id)
    running = Services(store, folder, first)
    for backend in TOY_MODELS:
        await running.start_backend(backend)
    await until(lambda: all(s.follower.releases for s in running.scoring.values()))
    running.gateway = await running.start_gateway()
    await running.until_full()
    yield running
    await running.stop()


@asynccontextmanager
async def standalone_server(
    services: Services, folder: Path, metrics_port: int = 0
) -> AsyncIterator[Gateway]:
    """Run a standalone server over the store of the three services.

    Args:
        services: The services, with whose gateway it is compared.
        folder: A folder for the cache.
        metrics_port: The port of the metrics; 0 for none.
    """
    settings = StandaloneSettings(
        store=services.store.url,
        listen="127.0.0.1:0",
        metrics_port=metrics_port,
        cache_dir=str(folder / "cache"),
        poll_interval=0.05,
        probe_interval=0.05,
        backend_timeout=WAIT_S,
    )
    gateway, followers = await start_standalone(settings, TOY_LOADERS)
    tasks = [asyncio.create_task(follower.follow()) for follower in followers]
    await services.until_full(gateway)
    yield gateway
    for task in tasks:
        task.cancel()
    await gateway.stop(0.5)


class BackgroundLoop:
    """An event loop in a separate thread, for servers that synchronous tests call."""

    def __init__(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, and wait for its result.

        Raises:
            TimeoutError: The coroutine did not end within `WAIT_S` seconds.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_S)

    def stop(self) -> None:
        """Stop the loop, and wait for its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
