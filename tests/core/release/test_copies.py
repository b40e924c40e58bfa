"""Local copies of releases are kept while a server uses them, and removed afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marquee_core.release.copies import ReleaseCopies
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from toy.bare_release import make_release

_HOLD = """
import sys
from pathlib import Path
from marquee_core.release.copies import ReleaseCopies
from marquee_core.release.store import ReleaseStore
ReleaseCopies(ReleaseStore(sys.argv[1]), Path(sys.argv[2])).lock(sys.argv[3])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def made(tmp_path: Path) -> tuple[ReleaseStore, Manifest]:
    """A store with one release."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    return store, manifest


def test_unused_copies_are_removed(made: tuple[ReleaseStore, Manifest], tmp_path: Path) -> None:
    """Copies of releases that this process holds are kept until it releases them."""
    store, manifest = made
    copies = ReleaseCopies(store, tmp_path / "cache")
    copies.lock(manifest.release_id)
    folder = store.open(manifest, lambda _: True, copies.folder)
    assert copies.evict() == []
    assert (folder / "b.txt").exists()
    copies.unlock(manifest.release_id)
    assert copies.evict() == [manifest.release_id]
    assert not folder.exists()
    copies.lock(manifest.release_id)
    assert store.open(manifest, lambda _: True, copies.folder) == folder


def test_copies_of_another_process_are_kept_until_it_ends(
    made: tuple[ReleaseStore, Manifest], tmp_path: Path
) -> None:
    """The copies can be removed after that process ends, even if it was killed."""
    store, manifest = made
    copies = ReleaseCopies(store, tmp_path / "cache")
    store.open(manifest, lambda _: True, copies.folder)
    command = [sys.executable, "-c", _HOLD, store.url, str(copies.folder), manifest.release_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert copies.evict() == []
        other.kill()
        other.wait()
        assert copies.evict() == [manifest.release_id]


def test_unfinished_copies_are_removed_when_old(
    made: tuple[ReleaseStore, Manifest], tmp_path: Path
) -> None:
    """A killed download leaves an old file, while a download in progress is recent."""
    store, manifest = made
    copies = ReleaseCopies(store, tmp_path / "cache")
    copies.lock(manifest.release_id)
    folder = store.open(manifest, lambda _: True, copies.folder)
    for name in (".partial-old", ".partial-new"):
        (folder / name).write_text("x")
    os.utime(folder / ".partial-old", (0, 0))
    assert ReleaseCopies(store, copies.folder).evict() == []
    assert sorted(p.name for p in folder.glob(".*")) == [".partial-new"]
