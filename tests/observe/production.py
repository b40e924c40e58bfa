"""Runs the production overlay on this machine, under a light load of typical calls."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy_check.objects import Object
from deploy_check.processes import Server, Step, Workspace, running_servers
from deploy_check.render import render_with
from deploy_check.secrets import Secrets
from deploy_check.system import (
    ITEM_IDS,
    METRICS_PORT,
    USER_IDS,
    gateway_address,
    train,
)
from marquee import Client, MarqueeError
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE

SERVICES = (GATEWAY, CF, INFERENCE)
_PAUSE_S = 0.1
_TIMEOUT_S = 5.0


@dataclass
class ProductionSystem:
    """The running system.

    Attributes:
        workspace: Its folders and ports on this machine.
        feedback: Folder of the feedback log.
        objects: The rendered manifests.
        servers: The server of each service.
        address: The gateway's address.
        secrets: The certificates.
    """

    workspace: Workspace
    feedback: Path
    objects: list[Object]
    servers: Mapping[str, Server]
    address: str
    secrets: Secrets

    @property
    def store(self) -> ReleaseStore:
        """The release store."""
        return ReleaseStore(str(self.workspace.volume("/store")))

    @property
    def metrics_ports(self) -> dict[str, int]:
        """The local port of each service's metrics."""
        return {service: self.workspace.port(service, METRICS_PORT) for service in SERVICES}

    def client(self, timeout: float = _TIMEOUT_S) -> Client:
        """Returns a client for the gateway."""
        return Client(self.address, tls=self.secrets.caller, timeout=timeout)


@contextmanager
def running_production(
    folder: Path,
    on_step: Callable[[str, Step], None],
    extra: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[ProductionSystem]:
    """Trains as the CronJob does, and runs the overlay `production` with mutual TLS and feedback.

    Args:
        folder: Folder for volumes and logs.
        on_step: Called with the service and each step that has passed.
        extra: Additional environment variables, by service.
    """
    objects = render_with("production", ("mtls",), folder / "rendered")
    workspace = Workspace(folder)
    train(objects, workspace, on_step)
    secrets = Secrets(objects, workspace.volume("/tls"))
    variables = {name: dict(values) for name, values in (extra or {}).items()}
    feedback = folder / "feedback"
    feedback.mkdir(exist_ok=True)
    log = f"sqlite:///{feedback / 'log.sqlite'}"
    gateway = {"MARQUEE_FEEDBACK": log, **variables.get(GATEWAY, {})}
    with running_servers(objects, workspace, on_step, {**variables, GATEWAY: gateway}) as servers:
        yield ProductionSystem(
            workspace=workspace,
            feedback=feedback,
            objects=objects,
            servers=servers,
            address=gateway_address(objects, workspace),
            secrets=secrets,
        )


@contextmanager
def damaged_release(system: ProductionSystem) -> Iterator[None]:
    """Points production at a copy of the release with damaged arrays until the context ends."""
    root = system.workspace.volume("/store")
    pointer = root / "production"
    before = pointer.read_bytes()
    good = system.store.production()
    if good is None:
        raise RuntimeError("no release is in production")
    bad_id = f"{good.release_id[:-1]}{'0' if good.release_id[-1] != '0' else '1'}"
    bad = root / "releases" / bad_id
    shutil.copytree(root / "releases" / good.release_id, bad)
    manifest = bad / "manifest.json"
    manifest.write_text(manifest.read_text().replace(good.release_id, bad_id))
    for path in bad.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8)
    pointer.write_bytes(before.replace(good.release_id.encode(), bad_id.encode()))
    try:
        yield
    finally:
        pointer.write_bytes(before)
        shutil.rmtree(bad)


def end_on_sigterm() -> None:
    """Makes SIGTERM raise SystemExit, so that the processes this one started are stopped."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class Load:
    """A thread that makes typical calls until `stop`; a context manager.

    Attributes:
        answered: Number of calls that were answered.
        failures: Number of failed calls by error message.
    """

    def __init__(self, system: ProductionSystem, pause: float = _PAUSE_S) -> None:
        """Starts the thread.

        Args:
            system: The system to call.
            pause: Seconds between two rounds of calls.
        """
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self._system, self._pause = system, pause
        self._random = random.Random(0)  # noqa: S311 - load, not secrets
        self._stop = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pauses the calls until the context ends."""
        self._running.clear()
        try:
            yield
        finally:
            self._running.set()

    def stop(self) -> None:
        """Stops the calls."""
        self._stop.set()
        self._running.set()
        self._thread.join()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        with self._system.client() as client:
            while not self._stop.wait(self._pause):
                self._running.wait()
                for call in self._calls(client):
                    if self._stop.is_set():
                        return
                    try:
                        call()
                        self.answered += 1
                    except MarqueeError as error:
                        self.failures[str(error)] += 1

    def _calls(self, client: Client) -> list[Callable[[], object]]:
        """Returns one round of calls, for random users and items."""
        user = self._random.choice(USER_IDS)
        known = self._random.choice(USER_IDS[:20])
        item = self._random.choice(ITEM_IDS)
        ratings = {i: self._random.randint(1, 5) for i in self._random.sample(ITEM_IDS, 5)}
        return [
            lambda: client.recommend(known),
            lambda: client.recommend(user, page_size=7),
            lambda: client.recommend(user, page_size=7),
            lambda: client.recommend(ratings=ratings),
            lambda: client.recommend("a new user"),
            lambda: client.recommend(user, diversity=0.3, include_metadata=True),
            lambda: client.similar_items(item),
            lambda: client.feedback.rate(user, {item: 4.0}),
        ]
