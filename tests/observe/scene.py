"""What faults need: the running system, its callers, and releases and servers beside its own."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy_check.objects import workloads
from deploy_check.processes import (
    Place,
    Server,
    arguments_of,
    await_probe,
    container_of,
    environment_of,
)
from deploy_check.system import METRICS_PORT
from marquee import Client, MarqueeError
from marquee_core.release.manifest import hash_folder, new_release_id
from marquee_core.service_names import GATEWAY
from observe.demo import Demo, Load
from observe.prometheus import Prometheus

_REFUSED_BY_GATE = 3
_REFUSED_PAUSE_S = 0.01


@dataclass(frozen=True)
class Scene:
    """Where a fault happens.

    Attributes:
        demo: The running system.
        load: Light load on it.
        servers: The Prometheus servers that scrape it.
        can_fill: Whether the volume of the feedback log is small enough to be filled.
    """

    demo: Demo
    load: Load
    servers: tuple[Prometheus, ...]
    can_fill: bool

    @contextmanager
    def calling(self, threads: int, call: Callable[[Client], object]) -> Iterator[None]:
        """Calls from threads, each with a client of its own; what is refused is tried again."""
        stop = threading.Event()

        def run() -> None:
            with self.demo.client() as client:
                while not stop.is_set():
                    try:
                        call(client)
                    except MarqueeError:
                        stop.wait(_REFUSED_PAUSE_S)

        started = [threading.Thread(target=run) for _ in range(threads)]
        for thread in started:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in started:
                thread.join()

    @contextmanager
    def starved(self, service: str, runs: float, stops: float) -> Iterator[None]:
        """Lets a server run for some seconds at a time only, as a limit of CPU does."""
        ended = threading.Event()
        process = self.demo.servers[service].process

        def run() -> None:
            while not ended.is_set():
                process.send_signal(signal.SIGSTOP)
                ended.wait(stops)
                process.send_signal(signal.SIGCONT)
                ended.wait(runs)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def restart(self, service: str, extra: Mapping[str, str] | None = None) -> None:
        """Kills a server, starts it with further variables, and waits until it is ready."""
        server = self.demo.servers[service]
        server.kill()
        server.start(extra)
        await_probe(self.demo.place, server, self._container(service), "readinessProbe")

    @contextmanager
    def second_gateway(self, store: Path) -> Iterator[None]:
        """Runs a further gateway, which reads another folder as its store, and scrapes it."""
        place = self.demo.place
        others = {key: port for key, port in place.ports.items() if key[0] != GATEWAY}
        beside = Place(place.folder, others)
        container = self._container(GATEWAY)
        environment = environment_of(beside, GATEWAY, container)
        environment["MARQUEE_STORE"] = str(store)
        log = place.folder / "logs" / "second-gateway.log"
        server = Server(GATEWAY, arguments_of(container), environment, log)
        targets = [*self.demo.metrics_ports.items()]
        try:
            await_probe(beside, server, container, "readinessProbe")
            for prometheus in self.servers:
                prometheus.scrape([*targets, (GATEWAY, beside.port(GATEWAY, METRICS_PORT))])
            yield
        finally:
            for prometheus in self.servers:
                prometheus.scrape(targets)
            server.kill()

    def publish(
        self, change: Callable[[Path], None] = lambda _: None, age: timedelta = timedelta(0)
    ) -> str:
        """Publishes a copy of the release in production; returns its id.

        Args:
            change: Changes files in its folder; the manifest has their new digests.
            age: How long ago it says that it was published.
        """
        store, made = self.demo.store, self.demo.place.folder / "made"
        manifest = store.manifest(self.production())
        shutil.copytree(store.storage.path("releases", manifest.release_id), made)
        change(made)
        found, now = hash_folder(made), datetime.now(UTC)
        files = {path: found[path] for path in manifest.files if path in found}
        changed = dataclasses.replace(
            manifest,
            release_id=new_release_id(files, now),
            published_at=(now - age).isoformat(),
            files=files,
        )
        store.publish(made, changed)
        shutil.rmtree(made)
        return changed.release_id

    def production(self) -> str:
        """The id of the release in production."""
        found = self.demo.store.production()
        if found is None:
            raise RuntimeError("no release is in production")
        return found.release_id

    @contextmanager
    def forced(self, release_id: str) -> Iterator[None]:
        """Promotes a release without asking the gate, and promotes the one before at the end."""
        before = self.production()
        self.demo.store.promote(release_id, forced=True)
        try:
            yield
        finally:
            self.demo.store.promote(before, forced=True)

    def refusal(self, release_id: str) -> str:
        """What the gate says when it is asked to promote a release.

        Raises:
            RuntimeError: It does not refuse.
        """
        begun = time.monotonic()
        asked = subprocess.run(
            [
                *(sys.executable, "-m", "marquee.cli", "releases"),
                *("--store", self.demo.store.url, "promote", release_id),
            ],
            capture_output=True,
            text=True,
        )
        said = asked.stdout + asked.stderr
        if asked.returncode != _REFUSED_BY_GATE:
            raise RuntimeError(f"the gate ended with {asked.returncode}: {said}")
        return f"the gate refused it after {time.monotonic() - begun:.1f} s: {said.strip()}"

    def _container(self, service: str) -> dict[str, object]:
        workload = next(w for w in workloads(self.demo.objects) if w.name == f"marquee-{service}")
        return container_of(workload)
