"""The release store: a local folder, or object storage by URL (fsspec).

    <root>/releases/<release id>/manifest.json, ensemble.json, data/…, models/…
    <root>/production, <root>/audit/…           see `pointer.py`

A release is visible once its manifest exists, which `publish.py` writes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    check_release_id,
)
from marquee_core.release.parsing import parse_manifest
from marquee_core.release.pointer import PROMOTE, ROLLBACK, Production, ProductionPointer
from marquee_core.release.publish import write_release
from marquee_core.release.replay_guard import ReplayGuard
from marquee_core.release.signing import (
    SIGNATURE_NAME,
    Signer,
    TrustedKeys,
    join_signatures,
)
from marquee_core.release.storage import PARTIAL, Storage, StoreURLError
from marquee_core.release.transfer import Transfer, matches, remove_leftovers

__all__ = ["Production", "ReleaseStore", "StoreURLError"]

_RELEASES = "releases"
# The maximum number of releases whose copies can be scrubbed; servers load fewer.
_MAX_OPENED = 64


class ReleaseStore:
    """Publishes, lists, promotes and opens releases.

    Attributes:
        url: The folder or URL of the store as it was given; it may contain a password.
        storage: The files of the store, for data that is stored alongside the releases.
        pointer: The pointer to the release in production, and the audit of its changes.
        trusted: The keys of which one must have signed a release; None to accept any release.
        signer: Signs the releases that are published; None to leave them unsigned.
        replay_guard: Detects signed files that are older than ones read before.
    """

    def __init__(
        self,
        url: str,
        *,
        trusted: TrustedKeys | None = None,
        signer: Signer | None = None,
        state_folder: Path | None = None,
    ) -> None:
        """Takes the path of a folder, or a URL that fsspec supports (`s3://bucket/prefix`, …).

        Args:
            url: The folder or URL.
            trusted: The keys of which one must have signed a release; None to accept any release.
            signer: Signs the releases that are published; None to leave them unsigned.
            state_folder: Local folder for the change numbers of the signed files that have been
                read; None to keep the numbers in memory only. See `ReplayGuard`.

        Raises:
            StoreURLError: The scheme of the URL is unknown, or its file system needs a package that
                is not installed.
        """
        self.storage = Storage(url)
        self.url = url
        self.replay_guard = ReplayGuard(url, state_folder)
        self.pointer = ProductionPointer(self.storage, self.replay_guard, trusted, signer)
        self.trusted, self.signer = trusted, signer
        self._transfer = Transfer(self.storage)
        self._opened: dict[str, dict[str, FileEntry]] = {}  # the entries of copied files

    def manifests(self) -> list[Manifest]:
        """Returns the manifests of all releases, the newest first; skips damaged releases."""
        manifests = []
        for release_id in self.ids():
            try:
                manifests.append(self.manifest(release_id))
            except ArtifactError:
                continue
        return sorted(manifests, key=lambda m: (m.published_at, m.release_id), reverse=True)

    def ids(self) -> list[str]:
        """Returns the ids of all releases, including damaged ones, in ascending order."""
        return [
            name
            for name in self.storage.names(_RELEASES)
            if not name.startswith(".") and self.storage.exists(_path(name, MANIFEST_NAME))
        ]

    def manifest(self, release_id: str) -> Manifest:
        """Reads the manifest of a release.

        Raises:
            ArtifactError: The release does not exist, its manifest is damaged, or it is not signed
                by any of the trusted keys.
            OSError: The store cannot be read.
        """
        path = _path(check_release_id(release_id), MANIFEST_NAME)
        try:
            content = self.storage.read(path)
        except FileNotFoundError as error:
            raise ArtifactError(
                f"there is no release {release_id!r} in {self.storage.url}"
            ) from error
        if self.trusted is not None:
            self.trusted.check(content, self._signatures(release_id), f"release {release_id}")
        return parse_manifest(content, release_id)

    def manifest_digest(self, release_id: str) -> str:
        """Returns the SHA-256 of a release's manifest, which identifies the release's content.

        Raises:
            ArtifactError: See `manifest`.
            OSError: The store cannot be read.
        """
        return hashlib.sha256(self.manifest(release_id).to_json().encode()).hexdigest()

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Publishes a release; it becomes visible only once all its files are stored.

        Args:
            folder: The folder of the files that the manifest lists.
            manifest: The manifest, which this method writes to the store.

        Raises:
            ArtifactError: A file in the folder is missing or does not match the manifest.
            FileExistsError: The store already has a release of that id.
        """
        folder_in_store = _path(check_release_id(manifest.release_id))
        write_release(self.storage, folder_in_store, folder, manifest, self.signer)

    def sign(self, release_id: str, signer: Signer) -> None:
        """Adds a signature to a release in the store, and keeps existing ones.

        Raises:
            ArtifactError: The release does not exist, or its files do not match its manifest.
            OSError: The store cannot be read or written to.
        """
        self.verify_files(release_id)
        signature = signer.sign(self.storage.read(_path(release_id, MANIFEST_NAME)))
        self.storage.update(
            _path(release_id, SIGNATURE_NAME),
            lambda before: join_signatures([before or b"", signature]),
        )

    def production(self) -> Production | None:
        """Returns the release in production; None if no release has been promoted yet.

        Raises:
            ArtifactError: The pointer is damaged or not accepted; see `ProductionPointer.read`.
            OSError: The store cannot be read.
        """
        return self.pointer.read()

    def verify_files(self, release_id: str) -> Manifest:
        """Verifies all files of a release against the SHA-256 digests in its manifest.

        In object storage this downloads all of them.

        Raises:
            ArtifactError: The release does not exist, or a file does not match its manifest.
            OSError: The store cannot be read.
        """
        manifest = self.manifest(release_id)
        self._transfer.verify(_path(release_id), manifest.files)
        return manifest

    def promote(
        self, release_id: str, *, why: str = "", forced: bool = False, by: str = ""
    ) -> Production:
        """Verifies all files of a release, then puts it in production by one atomic write.

        If the release is already in production, the promotion is recorded, and servers that refused
        the release try again. If the pointer is damaged, it is restored with the history in the
        audit.

        Args:
            release_id: The release.
            why: The reason, for the audit.
            forced: Whether the release is promoted in spite of failed checks, for the audit. The
                files are always verified.
            by: Who promotes the release, for the audit; by default the user and host of this
                process.

        Raises:
            ArtifactError: The release does not exist, or a file does not match its manifest.
            OSError: The store cannot be read or written to.
        """
        self.verify_files(release_id)

        def choose(before: Production | None) -> tuple[str, tuple[str, ...]]:
            if before is None:
                return release_id, ()
            if before.release_id == release_id:
                return release_id, before.history
            return release_id, (before.release_id, *before.history)

        return self.pointer.change(PROMOTE, choose, by=by, why=why, forced=forced)

    def rollback(self, *, why: str = "", by: str = "") -> Production:
        """Puts the most recent predecessor that is intact back in production.

        Releases whose files are damaged or deleted are skipped and removed from the history.

        Args:
            why: The reason, for the audit.
            by: Who rolls back, for the audit; by default the user and host of this process.

        Raises:
            ArtifactError: There is no previous release, or none of them is intact.
            OSError: The store cannot be read or written to.
        """
        damage: dict[str, str] = {}

        def choose(before: Production | None) -> tuple[str, tuple[str, ...]]:
            if before is None or not before.history:
                raise ArtifactError("there is no release to roll back to")
            for index, release_id in enumerate(before.history):
                if release_id not in damage:
                    damage[release_id] = self._damage(release_id)
                if not damage[release_id]:
                    return release_id, before.history[index + 1 :]
            reasons = "; ".join(f"{name}: {damage[name]}" for name in before.history)
            raise ArtifactError(f"no previous release can be rolled back to: {reasons}")

        return self.pointer.change(ROLLBACK, choose, by=by, why=why)

    def open(self, manifest: Manifest, needed: Callable[[str], bool], cache: Path) -> Path:
        """Copies files of a release into the cache, and verifies the copies.

        Servers map the copies, so changes in the store do not affect a loaded release.

        Args:
            manifest: The release's manifest.
            needed: Returns whether a file is needed, given its path relative to the release.
            cache: The folder of the copies, with a subfolder for each release.

        Returns:
            The folder of the copies. It contains only files that a manifest lists, but possibly
            more than the needed ones.

        Raises:
            ArtifactError: A needed file is missing or does not match the manifest.
            OSError: The store cannot be read, or the cache cannot be written to.
        """
        files = {path: entry for path, entry in manifest.files.items() if needed(path)}
        folder = cache / manifest.release_id
        folder.mkdir(parents=True, exist_ok=True)
        self._transfer.fetch(_path(manifest.release_id), files, folder)
        opened = {**self._opened.pop(manifest.release_id, {}), **files}
        self._opened[manifest.release_id] = opened
        while len(self._opened) > _MAX_OPENED:
            self._opened.pop(next(iter(self._opened)))
        return folder

    def delete(self, release_id: str) -> None:
        """Deletes a release and its files. It becomes invisible before its files are deleted.

        Raises:
            OSError: The store cannot be written to.
        """
        path = _path(check_release_id(release_id))
        if self.storage.is_local:
            folder = Path(self.storage.path(path))
            deleted = folder.with_name(f"{PARTIAL}deleted-{release_id}")
            folder.rename(deleted)
            shutil.rmtree(deleted)
            return
        self.storage.call(self.storage.fs.rm_file, self.storage.path(path, MANIFEST_NAME))
        self.storage.call(self.storage.fs.rm, self.storage.path(path), recursive=True)

    def remove_unfinished(self, age: float) -> int:
        """Removes unfinished files and folders that killed publishers left behind.

        Args:
            age: The minimum age, in seconds since the last write.

        Returns:
            The number of files and folders that were removed.

        Raises:
            OSError: The store cannot be read or written to.
        """
        if self.storage.is_local:
            return remove_leftovers(Path(self.storage.root), age)
        finished = set(self.ids())
        removed = 0
        for name in self.storage.names(_RELEASES):
            folder = _path(name)
            if name not in finished and self._transfer.age(folder) > age:
                self.storage.call(self.storage.fs.rm, self.storage.path(folder), recursive=True)
                removed += 1
        return removed

    def state(self, release_id: str) -> str:
        """Returns a digest of the names, sizes and times of a release's files.

        It changes whenever a file is changed.

        Raises:
            OSError: The store cannot be read.
        """
        return self._transfer.state(_path(check_release_id(release_id)))

    def damaged_copies(self, release_id: str, cache: Path) -> list[str]:
        """Returns the files that `open` copied into the cache and that have changed since.

        This reads the cache only. A deleted copy is not reported, because the mappings of a server
        remain valid.
        """
        folder = cache / release_id
        return [
            path
            for path, entry in list(self._opened.get(release_id, {}).items())
            if (folder / path).exists() and not matches(folder / path, entry)
        ]

    def _damage(self, release_id: str) -> str:
        """Returns what is wrong with the files of a release; "" if they are intact."""
        try:
            self.verify_files(release_id)
        except ArtifactError as error:
            return str(error)
        return ""

    def _signatures(self, release_id: str) -> bytes:
        try:
            return self.storage.read(_path(release_id, SIGNATURE_NAME))
        except FileNotFoundError:
            return b""


def _path(release_id: str, *parts: str) -> str:
    return "/".join((_RELEASES, release_id, *parts))
