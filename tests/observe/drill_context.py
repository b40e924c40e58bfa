"""Helpers for the faults of the drill: extra callers, servers and releases."""

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
    """The running system that faults act on, with helpers to cause them.

    Attributes:
        system: The running system.
        load: The light load on the system.
        servers: The Prometheus servers that scrape it.
        can_fill: Whether the volume of the feedback log is small enough to be filled.
    """

    system: ProductionSystem
    load: Load
    servers: tuple[Prometheus, ...]
    can_fill: bool

    @contextmanager
    def calling(self, threads: int, call: Callable[[Client], object]) -> Iterator[None]:
        """Repeats a call from several threads, each with its own client, ignoring errors."""
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
        """Alternately suspends and resumes a server, which has the effect of a CPU limit.

        Args:
            service: The service.
            runs: Seconds for which the server runs at a time.
            stops: Seconds for which it is suspended at a time.
        """
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
        """Kills a server, starts it with additional variables, and waits until it is ready."""
        server = self.system.servers[service]
        server.kill()
        server.start(extra)
        await_probe(self.system.workspace, server, self._container(service), "readinessProbe")

    @contextmanager
    def second_gateway(self, store: Path) -> Iterator[None]:
        """Runs and scrapes a second gateway, whose store is another folder."""
        workspace = self.system.workspace
        others = {key: port for key, port in workspace.ports.items() if key[0] != GATEWAY}
        second = Workspace(workspace.folder, others)
        container = self._container(GATEWAY)
        environment = environment_of(second, GATEWAY, container)
        environment["MARQUEE_STORE"] = str(store)
        log = workspace.folder / "logs" / "second-gateway.log"
        server = Server(GATEWAY, arguments_of(container), environment, log)
        targets = [*self.system.metrics_ports.items()]
        try:
            await_probe(second, server, container, "readinessProbe")
            for prometheus in self.servers:
                prometheus.scrape([*targets, (GATEWAY, second.port(GATEWAY, METRICS_PORT))])
            yield
        finally:
            for prometheus in self.servers:
                prometheus.scrape(targets)
            server.kill()

    def publish(
        self, change: Callable[[Path], None] = lambda _: None, age: timedelta = timedelta(0)
    ) -> str:
        """Publishes a copy of the release in production, and returns its id.

        Args:
            change: Changes files in the copy; their digests in the manifest are updated.
            age: Age of the copy according to its manifest.
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
        """Trains on changed ratings as the CronJob does, and returns the id of the release.

        Args:
            change: Changes the lines of the claim's ratings file, without the header.
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
        """Returns the id of the release in production."""
        found = self.system.store.production()
        if found is None:
            raise RuntimeError("no release is in production")
        return found.release_id

    @contextmanager
    def forced(self, release_id: str) -> Iterator[None]:
        """Promotes a release without the gate, and the previous one when the context ends."""
        before = self.production()
        self.system.store.promote(release_id, forced=True)
        try:
            yield
        finally:
            self.system.store.promote(before, forced=True)

    def refusal(self, release_id: str) -> str:
        """Returns why the gate refuses to promote a release.

        Raises:
            RuntimeError: The gate promoted the release, or failed.
        """
        begun = time.monotonic()
        output = self.promote_with_gate(release_id, _NOT_PROMOTED)
        findings = [line.strip() for line in output.splitlines() if line.startswith("  ")]
        against = [line for line in findings if not line.startswith(Decision.PROMOTE)]
        return f"the gate took {time.monotonic() - begun:.1f} s: {'; '.join(against)}"

    def promote_with_gate(self, release_id: str, expected: tuple[int, ...] = (0,)) -> str:
        """Promotes a release if it passes the gate, and returns the output of the command.

        Args:
            release_id: The release.
            expected: The exit statuses that are not an error.

        Raises:
            RuntimeError: The command exited with another status.
        """
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "marquee.cli", "releases"),
                *("--store", self.system.store.url, "promote", release_id),
            ],
            capture_output=True,
            text=True,
        )
        output = ended.stdout + ended.stderr
        if ended.returncode not in expected:
            raise RuntimeError(f"the gate exited with status {ended.returncode}: {output}")
        return output

    def _container(self, service: str) -> dict[str, object]:
        workload = next(w for w in workloads(self.system.objects) if w.name == f"marquee-{service}")
        return container_of(workload)
