"""A release as the gateway holds it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.releases.release import load_gateway_release
from toy.release import publish_toy


def test_a_release_is_freed_with_its_last_reference(tmp_path: Path) -> None:
    """It takes part in no reference cycle, so its memory does not wait for a garbage collection."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = publish_toy(store, tmp_path / "made")
    gc.disable()
    try:
        release = load_gateway_release(store, manifest.release_id, tmp_path / "cache")
        freed = weakref.ref(release)
        del release
        assert freed() is None
    finally:
        gc.enable()
