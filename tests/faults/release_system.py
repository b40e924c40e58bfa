"""The system under test for release faults: a gateway and a backend over one store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import marquee
from faults.callers import CALL_TIMEOUT_S, Callers
from faults.fault_table import Row
from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import Manifest, hash_folder
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.processes import ServiceProcess
from toy.release import ITEMS, USERS, publish_toy
from toy.waiting import wait_until

# How long calls are still recorded after a fault.
_AFTER_S = 0.5


class System:
    """A gateway and a backend over one store, with users who call continuously.

    Attributes:
        folder: Folder for temporary files.
        store: The release store.
        users: The users.
        client: A client for the gateway.
        cache: Folder of the servers' copies of releases.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path | None = None,
        saved_model: Path | None = None,
        **options: str,
    ) -> None:
        """Publishes a release and starts the servers.

        Args:
            folder: An empty folder.
            cache: Folder of the servers' copies of releases; None for a folder in `folder`.
            saved_model: A SavedModel to publish in releases for an inference service; None for
                releases for a CF service.
            options: Additional flags of the backend, with underscores.
        """
        self.saved_model = saved_model
        self.backend = CF if saved_model is None else INFERENCE
        self.folder = folder
        self.store = ReleaseStore(str(folder / "store"))
        self.cache = cache or folder / "cache"
        self._published = 0
        first = self.publish()
        self.store.promote(first.release_id)
        self.shared = {
            "store": self.store.url,
            "cache-dir": str(self.cache),
            "poll-interval": "0.1",
            "scrub-interval": "0.5",
        }
        own = {name.replace("_", "-"): value for name, value in options.items()}
        self.backend_options = {**self.shared, **own}
        log = folder / "backend.log"
        self.processes = [ServiceProcess(self.backend, self.backend_options, log)]
        # Generous, so that answers are not degraded on a loaded machine.
        limits = {"probe-interval": "0.1", "backend-timeout": str(CALL_TIMEOUT_S)}
        target = {f"{self.backend}-target": self.processes[0].address}
        flags = {**self.shared, **limits, **target}
        self.processes.append(ServiceProcess(GATEWAY, flags, folder / "gateway.log"))
        for process in self.processes:
            process.wait_until_serving()
        self.client = marquee.Client(self.processes[-1].address, timeout=CALL_TIMEOUT_S)
        wait_until(
            lambda: not self.client.recommend("u1").source.degraded, what="the first full answer"
        )
        users, items = [f"u{n}" for n in range(USERS)], [f"i{n}" for n in range(ITEMS)]
        self.users = Callers(self.processes[-1].address, users, items)

    def publish(self, saved_model: Path | None = None) -> Manifest:
        """Publishes another release.

        Args:
            saved_model: Its SavedModel; None for one that the servers can load.
        """
        self._published += 1
        folder, seed = self.folder / f"made-{self._published}", self._published
        model = saved_model or self.saved_model
        if model is not None:
            return publish_toy(self.store, folder, seed, backends=(INFERENCE,), saved_model=model)
        return publish_toy(self.store, folder, seed, servable=True)

    def release_folder(self, release_id: str) -> Path:
        """Returns the folder of a release in the store."""
        return Path(self.store.storage.path("releases", release_id))

    def serves(self, release_id: str) -> bool:
        """Returns whether the gateway answers in full with a release."""
        source = self.client.recommend("u1").source
        return source.release_id == release_id and not source.degraded

    def promote(self, manifest: Manifest) -> None:
        """Promotes a release, and waits until it is served."""
        self.store.promote(manifest.release_id)
        wait_until(
            lambda: self.serves(manifest.release_id), what=f"an answer from {manifest.release_id}"
        )

    def refused(self, release_id: str) -> bool:
        """Returns whether the status says that a release was refused."""
        reason = self.client.status().pending_release_reason
        return release_id in reason and "refused" in reason

    def stop(self) -> list[int]:
        """Stops the servers; returns their exit statuses."""
        self.client.close()
        return [process.stop() for process in reversed(self.processes)]

    def kill(self) -> None:
        """Kills the servers."""
        for process in self.processes:
            process.kill()


@contextmanager
def running_system(
    folder: Path, cache: Path | None = None, saved_model: Path | None = None, **options: str
) -> Iterator[System]:
    """Runs a system whose users call until the context ends; takes the arguments of `System`."""
    system = System(folder, cache, saved_model, **options)
    try:
        with system.users:
            yield system
    finally:
        system.kill()


def run_fault(system: System, name: str, fault: Callable[[Row], str]) -> Row:
    """Causes a fault, and records how the users' calls ended meanwhile.

    Args:
        system: The system.
        name: The row's name.
        fault: Causes the fault, adds problems to the row, and returns a description of the outcome.
    """
    row = Row(name)
    begin = time.monotonic()
    try:
        row.details = fault(row)
    except (AssertionError, ArtifactError, OSError) as error:
        row.problems.append(str(error))
    end = time.monotonic()
    time.sleep(_AFTER_S)
    row.calls = system.users.between(begin, end + _AFTER_S)
    row.recovery_s = system.users.recovered_after(end)
    row.check(row.calls.total > 0, "no call ended")
    row.check(row.calls.failed == 0, f"{row.calls.failed} calls failed: {row.calls.error}")
    row.check(row.calls.degraded == 0, f"{row.calls.degraded} answers were degraded")
    for process in system.processes:
        row.check(process.running, f"the {process.service} process ended")
    return row


def republished(
    store: ReleaseStore, manifest: Manifest, change: Callable[[Path], None]
) -> Manifest:
    """Changes files of a published release and updates their digests in its manifest.

    Args:
        store: The local store that holds the release.
        manifest: The release's manifest.
        change: Changes files in the release's folder.

    Returns:
        The new manifest, as a trainer could have written it.
    """
    folder = Path(store.storage.path("releases", manifest.release_id))
    change(folder)
    found = hash_folder(folder)
    changed = replace(manifest, files={path: found[path] for path in manifest.files})
    (folder / "manifest.json").write_text(changed.to_json())
    return changed
