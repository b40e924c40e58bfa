"""The release store: a local folder, or object storage by URL (fsspec).

    <root>/releases/<release id>/manifest.json, ensemble.json, data/…, models/…
    <root>/production                           the release in production, and its predecessors

A release becomes visible when its manifest exists. In a local folder it appears by an atomic
rename. Object storage has no atomic rename, so there the manifest is written last, and only if no
manifest of that id exists.
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

from marquee_core.errors import ArtifactError, reason_of
from marquee_core.redaction import redact
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


class StoreURLError(ValueError):
    """The URL of a release store cannot be used."""


@dataclass(frozen=True)
class Production:
    """The release in production.

    Attributes:
        release_id: The release's id.
        promoted_at: Time of the promotion, RFC 3339.
        history: The ids of the releases in production before it, the most recent first.
    """

    release_id: str
    promoted_at: str
    history: tuple[str, ...]


class ReleaseStore:
    """Publishes, lists, promotes and opens releases.

    Attributes:
        url: The folder or URL of the store.
    """

    def __init__(self, url: str) -> None:
        """Takes the path of a folder, or a URL that fsspec supports (`s3://bucket/prefix`, …).

        Raises:
            StoreURLError: The scheme of the URL is unknown, or its file system needs a package that
                is not installed.
        """
        self.url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise StoreURLError(redact(f"release store {url!r}: {error}")) from error
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def manifests(self) -> list[Manifest]:
        """The manifests of all releases, the newest first; damaged releases are left out."""
        manifests = []
        for release_id in self.ids():
            try:
                manifests.append(self.manifest(release_id))
            except ArtifactError:
                continue
        return sorted(manifests, key=lambda m: (m.published_at, m.release_id), reverse=True)

    def ids(self) -> list[str]:
        """The ids of all releases, including damaged ones, in ascending order."""
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
        """Reads the manifest of a release.

        Raises:
            ArtifactError: The release does not exist, or its manifest is damaged.
        """
        path = self._path(check_release_id(release_id), MANIFEST_NAME)
        try:
            text = self._fs.cat_file(path).decode()
        except FileNotFoundError as error:
            where = redact(self.url)
            raise ArtifactError(f"there is no release {release_id!r} in {where}") from error
        except UnicodeDecodeError as error:
            raise ArtifactError(f"damaged manifest: {error}") from error
        return Manifest.from_json(text, release_id)

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Publishes a release; it becomes visible only once all its files are stored.

        Args:
            folder: The folder of the files that the manifest lists.
            manifest: The manifest; this method writes it into the store.

        Raises:
            ArtifactError: A file in the folder is missing or does not match the manifest.
            FileExistsError: The store has a release of that id.
        """
        check_release_id(manifest.release_id)
        for path, entry in manifest.files.items():
            _verify(folder / path, entry)
        if self._local:
            self._publish_local(folder, manifest)
        else:
            self._publish_remote(folder, manifest)

    def production(self) -> Production | None:
        """The release in production; None if no release has been promoted yet.

        Raises:
            ArtifactError: The file that names it is damaged.
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
            raise ArtifactError(f"damaged file {_PRODUCTION!r}: {reason_of(error)}") from error

    def promote(self, release_id: str) -> Production:
        """Checks the files of a release, then puts it in production by one atomic write.

        In a local store the files are compared with the SHA-256 digests of the manifest. In object
        storage only their sizes are, to avoid downloads; the servers verify the digests of the
        files that they load.

        Raises:
            ArtifactError: The release does not exist, or a file does not match its manifest.
        """
        manifest = self.manifest(release_id)
        for path, entry in manifest.files.items():
            self._verify_stored(release_id, path, entry)
        before = self.production()
        if before is None:
            history: tuple[str, ...] = ()
        elif before.release_id == release_id:
            return before
        else:
            history = (before.release_id, *before.history)[:_HISTORY_LIMIT]
        return self._set_production(release_id, history)

    def rollback(self) -> Production:
        """Puts the previous release back in production.

        Raises:
            ArtifactError: There is no previous release.
        """
        current = self.production()
        if current is None or not current.history:
            raise ArtifactError("there is no release to roll back to")
        self.manifest(current.history[0])
        return self._set_production(current.history[0], current.history[1:])

    def open(self, manifest: Manifest, needed: Callable[[str], bool], cache: Path) -> Path:
        """Verifies files of a release, and makes them available in a local folder.

        Args:
            manifest: The release's manifest.
            needed: Whether a file is needed, by its path relative to the release.
            cache: Folder that caches the files of a remote store, with a subfolder for each
                release.

        Returns:
            The folder. It may hold other files, which are not verified.

        Raises:
            ArtifactError: A needed file is missing or does not match the manifest.
        """
        release_id = manifest.release_id
        files = {path: entry for path, entry in manifest.files.items() if needed(path)}
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
            raise FileExistsError(f"release {manifest.release_id} already exists")
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
            # Fails if the target is a folder that is not empty, so a release is never replaced.
            partial.rename(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(releases)

    def _publish_remote(self, folder: Path, manifest: Manifest) -> None:
        target = self._path(manifest.release_id, MANIFEST_NAME)
        if self._fs.exists(target):
            raise FileExistsError(f"release {manifest.release_id} already exists")
        for path in manifest.files:
            self._fs.pipe_file(self._path(manifest.release_id, path), (folder / path).read_bytes())
        self._fs.pipe_file(target, manifest.to_json().encode(), mode="create")

    def _set_production(self, release_id: str, history: tuple[str, ...]) -> Production:
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

    def _verify_stored(self, release_id: str, path: str, entry: FileEntry) -> None:
        """Verifies a file in the store; for a remote store only its size, to avoid a download."""
        if self._local:
            _verify(Path(self._path(release_id, path)), entry)
            return
        try:
            size = self._fs.size(self._path(release_id, path))
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: the file is missing") from error
        if size != entry.size:
            raise ArtifactError(
                f"{path}: the file has {size} bytes, but the manifest says {entry.size}"
            )

    def _fetch(self, release_id: str, path: str, entry: FileEntry, target: Path) -> None:
        if target.exists() and hash_file(target) == entry:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, dir=target.parent)
        os.close(handle)
        try:
            self._fs.get_file(self._path(release_id, path), name)
            _verify(Path(name), entry)
            # Another process may download the same file; both then rename the same content.
            Path(name).replace(target)
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: the file is missing") from error
        finally:
            Path(name).unlink(missing_ok=True)


def _verify(path: Path, entry: FileEntry) -> None:
    """Checks a file against its entry in the manifest.

    Raises:
        ArtifactError: The file cannot be read, or its size or SHA-256 differs.
    """
    try:
        found = hash_file(path)
    except OSError as error:
        raise ArtifactError(f"{path.name}: {error.strerror}") from error
    if found != entry:
        raise ArtifactError(
            f"{path.name}: the file has SHA-256 {found.sha256[:12]}… and {found.size} bytes, "
            f"but the manifest says {entry.sha256[:12]}… and {entry.size}"
        )


def _sync(path: Path) -> None:
    """Flushes a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
