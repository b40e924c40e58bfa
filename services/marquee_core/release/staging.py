"""Stages a release in a separate store, so that it can be evaluated before it is published."""

from __future__ import annotations

from pathlib import Path

from marquee_core.release.manifest import MANIFEST_NAME, Manifest
from marquee_core.release.store import ReleaseStore


def stage(root: Path, folder: Path, manifest: Manifest) -> tuple[ReleaseStore, Path]:
    """Moves the files of a release into a new store that contains nothing else.

    Args:
        root: The folder of the new store, on the same file system as `folder`.
        folder: The folder of the files.
        manifest: The manifest.

    Returns:
        The store, and the new folder of the files.

    Raises:
        OSError: The files cannot be moved or written.
    """
    target = root / "releases" / manifest.release_id
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    (target / MANIFEST_NAME).write_text(manifest.to_json())
    return ReleaseStore(str(root)), target
