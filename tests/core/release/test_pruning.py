"""Pruning deletes releases that nothing needs, and nothing else."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from marquee_core.release.pruning import prune
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import judged_releases, record_verdict
from toy.bare_release import make_release

IDS = [f"2026010{day}T000000Z-00000000" for day in range(1, 9)]
NOT_RECENT = timedelta(0)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    """A store with eight releases, none of which is in production."""
    local = request.param == "local"
    url = str(tmp_path / "store") if local else f"memory://{tmp_path.name}-{os.getpid()}-prune"
    created = ReleaseStore(url)
    for release_id in IDS:
        created.publish(
            tmp_path / release_id, make_release(tmp_path / release_id, release_id=release_id)
        )
    return created


def test_the_newest_releases_are_kept(store: ReleaseStore) -> None:
    """All older releases are deleted with all their files, oldest first."""
    assert prune(store, 3).releases == tuple(IDS[:5])
    assert store.ids() == IDS[5:]
    assert store.storage.names(f"releases/{IDS[0]}") == []


def test_a_dry_run_deletes_nothing(store: ReleaseStore) -> None:
    """A dry run lists what would be deleted."""
    assert prune(store, 3, dry_run=True).releases == tuple(IDS[:5])
    assert store.ids() == IDS


def test_verdicts_are_deleted_with_their_releases(store: ReleaseStore) -> None:
    """Verdicts on remaining releases are kept, and those on deleted releases are removed."""
    for release_id in (IDS[0], IDS[6], IDS[7]):
        check = Check("ranking", Decision.REFUSE, "worse", {"difference": -0.5})
        verdict = Verdict.of(release_id, "", "2026-01-09T00:00:00+00:00", [check])
        record_verdict(store.storage, verdict)
    store.delete(IDS[6])
    prune(store, 3, dry_run=True)
    assert judged_releases(store.storage) == [IDS[0], IDS[6], IDS[7]]
    prune(store, 3)
    assert judged_releases(store.storage) == [IDS[7]]


def test_releases_in_use_are_kept(store: ReleaseStore) -> None:
    """These are production, its predecessor, experiment arms, and loaded or recent releases."""
    for place in (2, 1, 0):
        store.promote(IDS[place])
    experiments = [
        {"name": "over", "ended_at": "2026-01-09", "arms": [{"release_id": IDS[4]}]},
        {"name": "runs", "ended_at": "", "arms": [{"release_id": IDS[3]}]},
    ]
    store.storage.create("experiments", json.dumps({"experiments": experiments}).encode())
    found = prune(store, 1, loaded=[IDS[5]], recently=NOT_RECENT)
    assert found.releases == (IDS[2], IDS[4], IDS[6])
    assert found.kept == {
        IDS[0]: "in production",
        IDS[1]: "in production before",
        IDS[3]: "named in experiments",
        IDS[5]: "loaded by a server",
    }
    assert IDS[2] not in store.ids()


def test_a_release_recently_in_production_is_kept(store: ReleaseStore) -> None:
    """A server may still have the release loaded."""
    for place in (2, 1, 0):
        store.promote(IDS[place])
    assert prune(store, 1).kept[IDS[2]] == "in production recently"


def test_a_rolled_back_release_counts_as_recent(store: ReleaseStore) -> None:
    """A release that was rolled back is not in the history, but servers had loaded it."""
    store.promote(IDS[0])
    store.promote(IDS[1])
    store.rollback()
    assert IDS[1] in prune(store, 1).kept


def test_at_least_one_release_is_kept(store: ReleaseStore) -> None:
    """Keeping no release is an error rather than an empty store."""
    with pytest.raises(ValueError, match="at least one"):
        prune(store, 0)


def test_remains_of_killed_publishers_are_removed_when_old(tmp_path: Path) -> None:
    """The files of a publisher that is still working are kept."""
    store = ReleaseStore(str(tmp_path / "store"))
    store.publish(tmp_path / "made", make_release(tmp_path / "made"))
    releases = tmp_path / "store" / "releases"
    for name in (".partial-old", ".partial-new"):
        (releases / name / "data").mkdir(parents=True)
        (releases / name / "data" / "x").write_text("x")
    for path in (releases / ".partial-old").rglob("*"):
        os.utime(path, (0, 0))
    os.utime(releases / ".partial-old", (0, 0))
    assert prune(store, 1).leftovers >= 1
    assert not (releases / ".partial-old").exists()
    assert (releases / ".partial-new" / "data" / "x").exists()


def test_temporary_files_of_killed_trainers_are_removed_when_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They contain copies of releases. Files of other programs in the same folder are kept."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    store = ReleaseStore(str(tmp_path / "store"))
    store.publish(tmp_path / "made", make_release(tmp_path / "made"))
    doomed = ["marquee-abc/marquee-gate-1", "marquee-abc/marquee-release-1", "marquee-verify-1"]
    stay = ["marquee-abc/other", "marquee-backup"]
    for name in (*doomed, *stay):
        path = tmp_path / "tmp" / name
        path.mkdir(parents=True)
        os.utime(path, (0, 0))
    (tmp_path / "tmp" / "marquee-gate-new").mkdir()
    assert prune(store, 1).leftovers == len(doomed)
    left = {str(p.relative_to(tmp_path / "tmp")) for p in (tmp_path / "tmp").rglob("*")}
    assert left == {*stay, "marquee-abc", "marquee-gate-new"}
