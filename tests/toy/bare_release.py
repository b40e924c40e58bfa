"""A release of two small files and no models, for tests of the release store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from marquee_core.release.manifest import (
    DataEntry,
    Manifest,
    hash_folder,
    new_release_id,
)


def make_release(folder: Path, text: str = "one", release_id: str = "") -> Manifest:
    """Write two small files, and return the manifest of a release of them.

    Args:
        folder: The folder to write to.
        text: The content of one of the files.
        release_id: The id of the release; a new one by default.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "a.txt").write_text(text)
    (folder / "b.txt").write_text("b" * 1000)
    files = hash_folder(folder)
    return Manifest(
        release_id=release_id or new_release_id(files, datetime.now(UTC)),
        published_at=datetime.now(UTC).isoformat(),
        data=DataEntry("test", "0" * 64, 1, 1, 1, 1.0, 5.0, ("Drama",)),
        models=(),
        evaluation={},
        library_versions={},
        files=files,
    )
