"""The pointer to the release in production: concurrent changes are all kept and recorded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from marquee_core.errors import ArtifactError
from marquee_core.release.storage import Storage, SwapConflictError
from marquee_core.release.store import ReleaseStore
from toy.bare_release import make_release
from toy.store_races import check_history, count_concurrently, promote_concurrently

IDS = [f"2026010{day}T000000Z-00000000" for day in range(1, 10)]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    """A store in a local folder, and one in object storage with create-only writes."""
    if request.param == "local":
        return ReleaseStore(str(tmp_path / "store"))
    return ReleaseStore(f"memory://pointer-{tmp_path.name}-{os.getpid()}")


def publish(store: ReleaseStore, folder: Path, release_ids: list[str]) -> None:
    """Publish small releases with these ids."""
    for release_id in release_ids:
        store.publish(folder / release_id, make_release(folder / release_id, release_id=release_id))


def test_each_change_is_recorded_with_author_and_reason(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """The audit lists all changes, most recent first, and reading it changes nothing."""
    publish(store, tmp_path, IDS[:2])
    store.promote(IDS[0], by="ann", why="first")
    store.promote(IDS[1], by="bob", why="better", forced=True)
    store.rollback(why="worse after all")
    changes = store.pointer.audit()
    assert [(state.change.number, state.change.action) for state in changes] == [
        (3, "rollback"),
        (2, "promote"),
        (1, "promote"),
    ]
    assert [state.release_id for state in changes] == [IDS[0], IDS[1], IDS[0]]
    assert [state.change.previous_id for state in changes] == [IDS[1], IDS[0], ""]
    assert changes[1].change.by == "bob"
    assert changes[1].change.forced
    assert changes[0].change.why == "worse after all"
    assert changes[0].change.by
    assert store.pointer.audit(limit=1) == changes[:1]


def test_the_change_of_a_killed_process_is_recorded_later(
    store: ReleaseStore, tmp_path: Path
) -> None:
    """The pointer contains its latest change, so a missing record is shown and written later."""
    publish(store, tmp_path, IDS[:2])
    store.promote(IDS[0], why="first")
    store.storage.fs.rm_file(store.storage.path("audit/00000001.json"))
    assert [state.change.why for state in store.pointer.audit()] == ["first"]
    store.promote(IDS[1])
    assert store.storage.names("audit") == ["00000001.json", "00000002.json"]


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff", b"[]", b'{"release_id": 3}', b"NaN"])
def test_a_promotion_repairs_a_damaged_pointer(
    store: ReleaseStore, tmp_path: Path, garbage: bytes
) -> None:
    """The history is restored from the audit, and can be rolled back to."""
    publish(store, tmp_path, IDS[:3])
    store.promote(IDS[0])
    store.promote(IDS[1])
    store.storage.fs.pipe_file(store.storage.path("production"), garbage)
    with pytest.raises(ArtifactError, match="damaged file 'production'"):
        store.production()
    assert store.promote(IDS[2]).history == (IDS[1], IDS[0])
    assert store.rollback().release_id == IDS[1]


def test_a_pointer_in_the_former_format_is_accepted(store: ReleaseStore, tmp_path: Path) -> None:
    """The former format has no record of its change, so the next change has number 1."""
    publish(store, tmp_path, IDS[:2])
    old = f'{{"release_id": "{IDS[0]}", "promoted_at": "then", "history": []}}'
    store.storage.fs.pipe_file(store.storage.path("production"), old.encode())
    assert store.promote(IDS[1]).history == (IDS[0],)
    assert [state.change.number for state in store.pointer.audit()] == [1]


def test_rollback_skips_releases_that_are_damaged_or_deleted(tmp_path: Path) -> None:
    """Rollback chooses the latest complete release of the history, or reports why there is none."""
    store = ReleaseStore(str(tmp_path / "store"))
    publish(store, tmp_path, IDS[:4])
    for release_id in IDS[:4]:
        store.promote(release_id)
    releases = tmp_path / "store" / "releases"
    (releases / IDS[2] / "manifest.json").unlink()
    (releases / IDS[1] / "b.txt").write_text("c" * 1000)
    production = store.rollback()
    assert (production.release_id, production.history) == (IDS[0], ())
    store.promote(IDS[3])
    (releases / IDS[0] / "b.txt").unlink()
    with pytest.raises(ArtifactError, match=r"no previous release .* b\.txt: the file is missing"):
        store.rollback()


def test_a_concurrently_changed_file_is_not_replaced(store: ReleaseStore) -> None:
    """`swap` refuses if the file appeared or changed, and `create` never replaces a file."""
    storage = store.storage
    storage.swap("x.json", b"1", "")
    with pytest.raises(SwapConflictError):
        storage.swap("x.json", b"2", "")
    first = storage.read_versioned("x.json")
    storage.swap("x.json", b"2", first.version)
    with pytest.raises(SwapConflictError):
        storage.swap("x.json", b"3", first.version)
    with pytest.raises(FileExistsError):
        storage.create("x.json", b"4")
    assert storage.read("x.json") == b"2"


def test_concurrent_promotions_lose_nothing(tmp_path: Path) -> None:
    """Three processes that promote repeatedly leave a complete history and audit."""
    store = ReleaseStore(str(tmp_path / "store"))
    publish(store, tmp_path, IDS[:3])
    promote_concurrently(sys.executable, store.url, IDS[:3], 10, dict(os.environ))
    check_history(store, 30)


def test_concurrent_updates_of_a_file_lose_nothing(tmp_path: Path) -> None:
    """Three processes that increment the number in one file reach the sum."""
    url = str(tmp_path / "store")
    count_concurrently(sys.executable, url, 20, dict(os.environ))
    assert Storage(url).read("count") == b"60"
