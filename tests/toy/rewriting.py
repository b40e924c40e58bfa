"""Changes the files of a published release, for tests of damaged or unusual releases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from marquee_core.release.manifest import Manifest, hash_folder
from marquee_core.release.store import ReleaseStore


def rewrite(store: ReleaseStore, manifest: Manifest, change: Callable[[Path], None]) -> None:
    """Change files of a release, and record their digests in its manifest."""
    folder = Path(store.url) / "releases" / manifest.release_id
    change(folder)
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"] = {
        path: {"sha256": entry.sha256, "size": entry.size}
        for path, entry in hash_folder(folder).items()
        if path != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(raw))
