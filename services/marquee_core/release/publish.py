"""Writes a release to a store, in which it appears atomically.

In a local folder the whole release appears by an atomic rename. Object storage has no atomic
rename, so the manifest is written last, and only if there is no manifest of that id.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from marquee_core.errors import ArtifactError
from marquee_core.release.manifest import MANIFEST_NAME, FileEntry, Manifest, hash_file
from marquee_core.release.signing import SIGNATURE_NAME, Signer
from marquee_core.release.storage import PARTIAL, Storage, sync
from marquee_core.release.transfer import Transfer


def write_release(
    storage: Storage, target: str, folder: Path, manifest: Manifest, signer: Signer | None
) -> None:
    """Writes the files of a release and its manifest to a store.

    Args:
        storage: The files of the store.
        target: The folder of the release in the store.
        folder: The folder of the files that the manifest lists.
        manifest: The manifest, which this function writes to the store.
        signer: Signs the release; None to leave it unsigned.

    Raises:
        ArtifactError: A file in the folder is missing or does not match the manifest.
        FileExistsError: The store already has a release of that id.
        OSError: The store cannot be written to.
    """
    for path, entry in manifest.files.items():
        _verify(folder / path, entry)
    content = manifest.to_json().encode()
    signature = None if signer is None else signer.sign(content)
    own_files = {MANIFEST_NAME: content}
    if signature is not None:
        own_files[SIGNATURE_NAME] = signature
    if storage.is_local:
        _rename_into_place(Path(storage.path(target)), folder, manifest, own_files)
        return
    if storage.exists(f"{target}/{MANIFEST_NAME}"):
        raise FileExistsError(f"release {manifest.release_id} already exists")
    Transfer(storage).send(folder, target, manifest.files)
    if signature is not None:
        storage.update(f"{target}/{SIGNATURE_NAME}", lambda _: signature)
    storage.create(f"{target}/{MANIFEST_NAME}", content)


def _rename_into_place(
    target: Path, folder: Path, manifest: Manifest, own_files: dict[str, bytes]
) -> None:
    """Writes a release to a temporary folder, which is renamed once it is complete."""
    releases = target.parent
    releases.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise FileExistsError(f"release {manifest.release_id} already exists")
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=releases))
    try:
        for path in manifest.files:
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, partial / path)
            sync(partial / path)
        for name, content in own_files.items():
            (partial / name).write_bytes(content)
            sync(partial / name)
        for directory in (partial, *(p for p in partial.rglob("*") if p.is_dir())):
            directory.chmod(0o755)
            sync(directory)
        # Fails if the target is a non-empty folder, so a release is never replaced.
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync(releases)


def _verify(path: Path, entry: FileEntry) -> None:
    """Checks a file against its entry in the manifest.

    Raises:
        ArtifactError: The file cannot be read, or its size or SHA-256 differs.
    """
    try:
        found = hash_file(path)
    except OSError as error:
        raise ArtifactError(f"{path.name}: {error.strerror}") from error
    entry.check(found, path.name)
