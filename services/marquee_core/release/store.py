"""The store of releases: a local folder, or object storage by URL (fsspec).

    <root>/releases/<release id>/manifest.json, ensemble.json, data/…, models/…
    <root>/production                           which release is in service, and those before

A release exists once its manifest does. In a local folder it appears by a rename; in object
storage, where no rename is atomic, its manifest is written last and only if there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    check_release_id,
    hash_file,
)

_HISTORY_LIMIT = 100
_PRODUCTION = "production"
_RELEASES = "releases"
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Production:
    """The release in service.

    Attributes:
        release_id: Its id.
        promoted_at: When it was promoted, RFC 3339.
        history: The releases in service before it, latest first.
    """

    release_id: str
    promoted_at: str
    history: tuple[str, ...]


class ReleaseStore:
    """Publishes, lists, promotes and opens releases."""

    def __init__(self, url: str) -> None:
        """Takes a folder's path, or a URL that fsspec knows (`s3://bucket/prefix`, …).

        Raises:
            ValueError: No file system is known for the URL.
            ImportError: The URL's file system needs a package that is not installed.
        """
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def manifests(self) -> list[Manifest]:
        """The manifests of all releases that can be read, newest first."""
        manifests = []
        for release_id in self.ids():
            try:
                manifests.append(self.manifest(release_id))
            except ArtifactError:
                continue
        return sorted(manifests, key=lambda m: (m.published_at, m.release_id), reverse=True)

    def ids(self) -> list[str]:
        """The ids of all releases, damaged ones as well, in ascending order."""
        self._fs.invalidate_cache()
        try:
            names = self._fs.ls(f"{self._root}/{_RELEASES}", detail=False)
        except FileNotFoundError:
            return []
        ids = (str(name).rstrip("/").rsplit("/", 1)[-1] for name in names)
        return sorted(
            name
            for name in ids
            if not name.startswith(".") and self._fs.exists(self._path(name, MANIFEST_NAME))
        )

    def manifest(self, release_id: str) -> Manifest:
        """The manifest of a release.

        Raises:
            ArtifactError: There is no such release, or its manifest is damaged.
        """
        path = self._path(check_release_id(release_id), MANIFEST_NAME)
        try:
            text = self._fs.cat_file(path).decode()
        except FileNotFoundError as error:
            raise ArtifactError(f"there is no release {release_id!r} in {self.url}") from error
        except UnicodeDecodeError as error:
            raise ArtifactError(f"damaged manifest: {error}") from error
        return Manifest.from_json(text, release_id)

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Stores a release whole, or not at all.

        Args:
            folder: Holds the files that the manifest lists.
            manifest: The manifest; it is written by this method.

        Raises:
            ArtifactError: The folder's files are not as the manifest says.
            FileExistsError: There is a release of that id.
        """
        check_release_id(manifest.release_id)
        for path, entry in manifest.files.items():
            _verify(folder / path, entry)
        if self._local:
            self._publish_local(folder, manifest)
        else:
            self._publish_remote(folder, manifest)

    def production(self) -> Production | None:
        """The release in service; None when none has been promoted.

        Raises:
            ArtifactError: The pointer is damaged.
        """
        self._fs.invalidate_cache()
        try:
            raw = json.loads(self._fs.cat_file(f"{self._root}/{_PRODUCTION}"))
            return Production(
                check_release_id(raw["release_id"]), raw["promoted_at"], tuple(raw["history"])
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"damaged production pointer: {error!r}") from error

    def promote(self, release_id: str) -> Production:
        """Puts a release in service, by one atomic write; its files are verified first.

        Raises:
            ArtifactError: There is no such release, or its files are not as its manifest says.
        """
        manifest = self.manifest(release_id)
        for path, entry in manifest.files.items():
            self._check_remote(release_id, path, entry)
        before = self.production()
        if before is None:
            history: tuple[str, ...] = ()
        elif before.release_id == release_id:
            return before
        else:
            history = (before.release_id, *before.history)[:_HISTORY_LIMIT]
        return self._point(release_id, history)

    def rollback(self) -> Production:
        """Puts the release before the present one back in service.

        Raises:
            ArtifactError: There is none.
        """
        now = self.production()
        if now is None or not now.history:
            raise ArtifactError("there is no release to roll back to")
        self.manifest(now.history[0])
        return self._point(now.history[0], now.history[1:])

    def open(self, manifest: Manifest, wanted: Callable[[str], bool], cache: Path) -> Path:
        """Makes files of a release available as a local folder, verified.

        Args:
            manifest: The release's manifest.
            wanted: Tells by relative path which files are needed.
            cache: Where files of a remote store are kept, in a folder for each release.

        Returns:
            The folder. It may hold other files, which are not verified.

        Raises:
            ArtifactError: A file is missing, or not as the manifest says.
        """
        release_id = manifest.release_id
        files = {path: entry for path, entry in manifest.files.items() if wanted(path)}
        folder = Path(self._path(release_id)) if self._local else cache / release_id
        for path, entry in files.items():
            if not self._local:
                self._fetch(release_id, path, entry, folder / path)
            else:
                _verify(folder / path, entry)
        return folder

    def _path(self, release_id: str, *parts: str) -> str:
        return "/".join((self._root, _RELEASES, release_id, *parts))

    def _publish_local(self, folder: Path, manifest: Manifest) -> None:
        releases = Path(self._root, _RELEASES)
        releases.mkdir(parents=True, exist_ok=True)
        final = releases / manifest.release_id
        if final.exists():
            raise FileExistsError(f"release {manifest.release_id} exists")
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=releases))
        try:
            for path in manifest.files:
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / path, partial / path)
                _sync(partial / path)
            (partial / MANIFEST_NAME).write_text(manifest.to_json())
            _sync(partial / MANIFEST_NAME)
            for directory in (partial, *(p for p in partial.rglob("*") if p.is_dir())):
                directory.chmod(0o755)
                _sync(directory)
            # Fails when the target exists and is not empty, so a release is never replaced.
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(releases)

    def _publish_remote(self, folder: Path, manifest: Manifest) -> None:
        target = self._path(manifest.release_id, MANIFEST_NAME)
        if self._fs.exists(target):
            raise FileExistsError(f"release {manifest.release_id} exists")
        for path in manifest.files:
            self._fs.pipe_file(self._path(manifest.release_id, path), (folder / path).read_bytes())
        self._fs.pipe_file(target, manifest.to_json().encode(), mode="create")

    def _point(self, release_id: str, history: tuple[str, ...]) -> Production:
        production = Production(release_id, datetime.now(UTC).isoformat(), history)
        text = json.dumps(production.__dict__, indent=2) + "\n"
        if not self._local:
            self._fs.pipe_file(f"{self._root}/{_PRODUCTION}", text.encode())
            return production
        root = Path(self._root)
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, dir=root)
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(root / _PRODUCTION)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync(root)
        return production

    def _check_remote(self, release_id: str, path: str, entry: FileEntry) -> None:
        """Verifies a file where it lies; of a remote one only the size, without a download."""
        if self._local:
            _verify(Path(self._path(release_id, path)), entry)
            return
        try:
            size = self._fs.size(self._path(release_id, path))
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: missing") from error
        if size != entry.size:
            raise ArtifactError(f"{path}: {size} bytes, not {entry.size}")

    def _fetch(self, release_id: str, path: str, entry: FileEntry, target: Path) -> None:
        if target.exists() and hash_file(target) == entry:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, dir=target.parent)
        os.close(handle)
        try:
            self._fs.get_file(self._path(release_id, path), name)
            _verify(Path(name), entry)
            # Another process may fetch the same file: both rename the same content.
            Path(name).replace(target)
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: missing") from error
        finally:
            Path(name).unlink(missing_ok=True)


def _verify(path: Path, entry: FileEntry) -> None:
    """Raises ArtifactError unless the file is as the manifest says."""
    try:
        found = hash_file(path)
    except OSError as error:
        raise ArtifactError(f"{path.name}: {error.strerror}") from error
    if found != entry:
        raise ArtifactError(
            f"{path.name}: SHA-256 {found.sha256[:12]}… of {found.size} bytes, "
            f"not {entry.sha256[:12]}… of {entry.size}"
        )


def _sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
