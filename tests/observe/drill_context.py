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
    Server,
    Workspace,
    arguments_of,
    await_probe,
    container_of,
    environment_of,
    run_to_end,
)
from deploy_check.system import METRICS_PORT, QUICK
from marquee import Client, MarqueeError
from marquee_core.release.manifest import hash_folder, new_release_id
from marquee_core.release.verdict import Decision
from marquee_core.service_names import GATEWAY
from marquee_services.promotion import EXIT_CODES, newest_release
from observe.production import Load, ProductionSystem
from observe.prometheus import Prometheus

_NOT_PROMOTED = (EXIT_CODES[Decision.REFUSE], EXIT_CODES[Decision.ASK])
_REFUSED_PAUSE_S = 0.01


@dataclass(frozen=True)
class DrillContext:
    """Where a fault happens.

    Attributes:
        system: The running system.
        load: Light load on it.
        servers: The Prometheus servers that scrape it.
        can_fill: Whether the volume of the feedback log is small enough to be filled.
    """

    system: ProductionSystem
    load: Load
    servers: tuple[Prometheus, ...]
    can_fill: bool

    @contextmanager
    def calling(self, threads: int, call: Callable[[Client], object]) -> Iterator[None]:
        """Calls from threads, each with a client of its own; what is refused is tried again."""
        stop = threading.Event()

        def run() -> None:
            with self.system.client() as client:
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
        process = self.system.servers[service].process

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
        server = self.system.servers[service]
        server.kill()
        server.start(extra)
        await_probe(self.system.workspace, server, self._container(service), "readinessProbe")

    @contextmanager
    def second_gateway(self, store: Path) -> Iterator[None]:
        """Runs a further gateway, which reads another folder as its store, and scrapes it."""
        workspace = self.system.workspace
        others = {key: port for key, port in workspace.ports.items() if key[0] != GATEWAY}
        beside = Workspace(workspace.folder, others)
        container = self._container(GATEWAY)
        environment = environment_of(beside, GATEWAY, container)
        environment["MARQUEE_STORE"] = str(store)
        log = workspace.folder / "logs" / "second-gateway.log"
        server = Server(GATEWAY, arguments_of(container), environment, log)
        targets = [*self.system.metrics_ports.items()]
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
        store, made = self.system.store, self.system.workspace.folder / "made"
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
            gate=None,
        )
        store.publish(made, changed)
        shutil.rmtree(made)
        return changed.release_id

    def train(self, change: Callable[[list[str]], list[str]]) -> str:
        """Trains as the CronJob does on other ratings, and publishes; returns the release's id.

        Args:
            change: Makes the lines of these from the lines of the claim's, without the header.
        """
        claim, other = (
            self.system.workspace.volume("/ratings"),
            self.system.workspace.folder / "other-ratings",
        )
        shutil.copytree(claim, other, dirs_exist_ok=True)
        header, *lines = (claim / "ratings.csv").read_text().splitlines()
        (other / "ratings.csv").write_text("\n".join([header, *change(lines), ""]))
        job = next(w for w in workloads(self.system.objects) if w.kind == "CronJob")
        extra = {**QUICK, "MARQUEE_TRAIN_DATA": str(other)}
        run_to_end(self.system.workspace, container_of(job, "train"), extra)
        return newest_release(self.system.store)

    def production(self) -> str:
        """The id of the release in production."""
        found = self.system.store.production()
        if found is None:
            raise RuntimeError("no release is in production")
        return found.release_id

    @contextmanager
    def forced(self, release_id: str) -> Iterator[None]:
        """Promotes a release without asking the gate, and promotes the one before at the end."""
        before = self.production()
        self.system.store.promote(release_id, forced=True)
        try:
            yield
        finally:
            self.system.store.promote(before, forced=True)

    def refusal(self, release_id: str) -> str:
        """What the gate finds against a release when it is asked to promote it.

        Raises:
            RuntimeError: It promotes the release, or fails.
        """
        begun = time.monotonic()
        said = self.ask_gate(release_id, _NOT_PROMOTED)
        findings = [line.strip() for line in said.splitlines() if line.startswith("  ")]
        against = [line for line in findings if not line.startswith(Decision.PROMOTE)]
        return f"the gate took {time.monotonic() - begun:.1f} s: {'; '.join(against)}"

    def ask_gate(self, release_id: str, expected: tuple[int, ...] = (0,)) -> str:
        """Asks the gate to promote a release; returns what it says.

        Raises:
            RuntimeError: The command ends with another status than expected.
        """
        asked = subprocess.run(
            [
                *(sys.executable, "-m", "marquee.cli", "releases"),
                *("--store", self.system.store.url, "promote", release_id),
            ],
            capture_output=True,
            text=True,
        )
        said = asked.stdout + asked.stderr
        if asked.returncode not in expected:
            raise RuntimeError(f"the gate ended with {asked.returncode}: {said}")
        return said

    def _container(self, service: str) -> dict[str, object]:
        workload = next(w for w in workloads(self.system.objects) if w.name == f"marquee-{service}")
        return container_of(workload)
