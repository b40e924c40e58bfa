"""The release store: releases are published atomically, verified and promoted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from locations import TESTS
from marquee_core.errors import ArtifactError
from marquee_core.release.parsing import parse_manifest
from marquee_core.release.store import ReleaseStore
from toy.bare_release import make_release


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    """A store in a local folder, and one in object storage, which has no rename."""
    if request.param == "local":
        return ReleaseStore(str(tmp_path / "store"))
    return ReleaseStore(f"memory://{tmp_path.name}-{os.getpid()}")


def test_a_published_release_is_listed_and_opens_with_its_files(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """The files equal those that were published."""
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    assert store.manifests() == [manifest]
    folder = store.open(manifest, lambda _: True, tmp_path / "cache")
    assert (folder / "data" / "a.txt").read_text() == "one"


def test_a_release_is_immutable(store: ReleaseStore, tmp_path: Path) -> None:
    """Publishing another release with the same id fails, and the first one is kept."""
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    with pytest.raises(FileExistsError):
        store.publish(tmp_path / "made", manifest)
    assert store.ids() == [manifest.release_id]


def test_a_folder_that_differs_from_its_manifest_is_not_published(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """The files are verified before anything is stored."""
    manifest = make_release(tmp_path / "made")
    (tmp_path / "made" / "b.txt").write_text("changed")
    with pytest.raises(ArtifactError, match=r"b\.txt"):
        store.publish(tmp_path / "made", manifest)
    assert store.ids() == []


def test_promote_and_rollback_walk_the_history(store: ReleaseStore, tmp_path: Path) -> None:
    """Each rollback goes back by one release until none is left."""
    ids = []
    for text in ("one", "two", "three"):
        manifest = make_release(tmp_path / text, text)
        store.publish(tmp_path / text, manifest)
        ids.append(manifest.release_id)
        store.promote(manifest.release_id)
    assert store.rollback().release_id == ids[1]
    assert store.rollback().release_id == ids[0]
    with pytest.raises(ArtifactError, match="roll back"):
        store.rollback()
    production = store.production()
    assert production is not None
    assert production.release_id == ids[0]


def test_promoting_the_release_in_production_keeps_the_history(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """A repeated promotion is recorded, but does not add the release to its own history."""
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    store.promote(manifest.release_id)
    again = store.promote(manifest.release_id)
    assert (again.release_id, again.history) == (manifest.release_id, ())
    assert again.change.number == 2


def test_a_missing_release_is_not_promoted(store: ReleaseStore) -> None:
    """A release that does not exist cannot be in production."""
    with pytest.raises(ArtifactError, match="there is no release"):
        store.promote("20260101T000000Z-00000000")
    assert store.production() is None


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "x" * 65])
def test_ids_that_are_not_safe_as_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    """An id cannot point outside the store."""
    with pytest.raises(ArtifactError, match="not a release id"):
        ReleaseStore(str(tmp_path)).manifest(name)


def test_a_damaged_file_is_refused_when_opened_and_when_promoted(tmp_path: Path) -> None:
    """The SHA-256 digest detects a single changed byte."""
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    victim = tmp_path / "store" / "releases" / manifest.release_id / "b.txt"
    victim.write_text("c" + "b" * 999)
    with pytest.raises(ArtifactError, match="SHA-256"):
        store.open(manifest, lambda _: True, tmp_path / "cache")
    with pytest.raises(ArtifactError, match="SHA-256"):
        store.promote(manifest.release_id)
    assert store.open(manifest, lambda path: path != "b.txt", tmp_path).is_dir()


def test_a_damaged_file_in_the_cache_is_downloaded_again(tmp_path: Path) -> None:
    """A cached file that does not match the manifest is replaced."""
    store = ReleaseStore(f"memory://{tmp_path.name}-cache")
    manifest = make_release(tmp_path / "made")
    store.publish(tmp_path / "made", manifest)
    folder = store.open(manifest, lambda _: True, tmp_path / "cache")
    (folder / "b.txt").write_text("c" * 1000)
    again = store.open(manifest, lambda _: True, tmp_path / "cache")
    assert (again / "b.txt").read_text() == "b" * 1000


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("files"),
        lambda raw: raw.update(schema_version=99),
        lambda raw: raw.update(release_id="another"),
        lambda raw: raw["files"].update({"../evil": {"sha256": "0", "size": 0}}),
        lambda raw: raw["data"].update(surprise=1),
        lambda raw: raw.update(models=[{"name": "x"}]),
        lambda raw: raw.update(gate={"decision": "promote"}),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, change: object) -> None:
    """Missing, unknown and unsafe entries are detected."""
    manifest = make_release(tmp_path / "made")
    raw = json.loads(manifest.to_json())
    assert callable(change)
    change(raw)
    with pytest.raises(ArtifactError):
        parse_manifest(json.dumps(raw).encode(), manifest.release_id)


def test_a_killed_publisher_leaves_no_partial_release(tmp_path: Path) -> None:
    """All visible releases are complete, whenever the publisher is killed."""
    root, store = str(tmp_path / "store"), ReleaseStore(str(tmp_path / "store"))
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, __file__, root, str(tmp_path / f"made{round_}")],
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        before, limit = len(store.ids()), time.monotonic() + 60
        while len(store.ids()) < before + 3 + round_:
            assert process.poll() is None
            assert time.monotonic() < limit
        process.kill()
        process.wait()
        for release_id in store.ids():
            store.open(store.manifest(release_id), lambda _: True, tmp_path / "cache")


def _publish_forever(root: str, made: str) -> None:
    store, step = ReleaseStore(root), 0
    while True:
        folder = Path(made) / str(step)
        store.publish(folder, make_release(folder, str(folder)))
        step += 1


if __name__ == "__main__":
    _publish_forever(sys.argv[1], sys.argv[2])
