"""Experiments in the release store, on disk and in object storage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from marquee_core.errors import ArtifactError
from marquee_core.experiments.experiment import Arm, Experiment, ExperimentError
from marquee_core.experiments.store import MAX_KEPT, ExperimentStore, running
from marquee_core.release.pruning import prune
from marquee_core.release.signing import Signer, TrustedKeys, generate_key
from marquee_core.release.store import ReleaseStore
from toy.experiments import toy_experiment
from toy.release import publish_toy


@pytest.fixture(params=["folder", "memory"])
def releases(request: pytest.FixtureRequest, tmp_path: Path) -> ReleaseStore:
    """A release store with one release, in a folder or in object storage."""
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid4()}"
    store = ReleaseStore(url)
    publish_toy(store, tmp_path / "made")
    return store


def experiment_of(store: ReleaseStore, name: str = "toy", blend: str = "") -> Experiment:
    """Return an experiment between the release of the store and a blend of its models."""
    [release_id] = store.ids()
    weights = {blend: 1.0} if blend else {}
    return toy_experiment(
        Arm("control", release_id, 50.0), Arm("b", release_id, 50.0, weights), name=name
    )


def test_only_one_experiment_runs_at_a_time(releases: ReleaseStore) -> None:
    """A second experiment is refused until the first has ended, and names are not reused."""
    store = ExperimentStore(releases)
    assert store.all() == []
    first = experiment_of(releases, "first")
    store.start(first)
    assert running(ExperimentStore(releases).all()) == first
    with pytest.raises(ExperimentError, match="first is running"):
        store.start(experiment_of(releases, "second"))
    ended = store.end("first", "stopped")
    assert ended.outcome == "stopped"
    assert not ended.is_running
    with pytest.raises(ExperimentError, match="not running"):
        store.end("first", "stopped")
    with pytest.raises(ExperimentError, match="choose another name"):
        store.start(first)
    store.start(experiment_of(releases, "second"))
    assert [each.name for each in store.all()] == ["second", "first"]
    assert store.find().name == "second"
    assert store.find("first") == ended


def test_arms_need_a_release_and_models_that_exist(releases: ReleaseStore) -> None:
    """The error names the arm and what it lacks."""
    store = ExperimentStore(releases)
    with pytest.raises(ExperimentError, match="arm control: there is no release 'r1'"):
        store.start(toy_experiment())
    with pytest.raises(ExperimentError, match=r"arm b: .* has no model nonsense; it has baseline"):
        store.start(experiment_of(releases, blend="nonsense"))
    assert store.all() == []


def test_only_one_of_several_concurrent_starts_succeeds(tmp_path: Path) -> None:
    """The others report that an experiment is running, and nothing is lost or overwritten."""
    releases = ReleaseStore(str(tmp_path / "store"))
    publish_toy(releases, tmp_path / "made")

    def start(number: int) -> bool:
        try:
            ExperimentStore(ReleaseStore(releases.url)).start(experiment_of(releases, f"e{number}"))
        except ExperimentError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(8))) == 1
    assert len(ExperimentStore(releases).all()) == 1


def test_only_the_last_experiments_are_kept(releases: ReleaseStore) -> None:
    """The number of experiments in the file is bounded."""
    store = ExperimentStore(releases)
    for number in range(MAX_KEPT + 3):
        store.start(experiment_of(releases, f"e{number}"))
        store.end(f"e{number}", "stopped")
    names = [each.name for each in store.all()]
    assert names == [f"e{number}" for number in reversed(range(3, MAX_KEPT + 3))]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 2, "experiments": []}', '{"format": 1, "experiments": [1]}']
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    """Reading a damaged file is an error rather than an empty list of experiments."""
    (tmp_path / "experiments").write_text(content)
    with pytest.raises(ArtifactError, match="damaged"):
        ExperimentStore(ReleaseStore(str(tmp_path))).all()


def test_only_a_signed_file_is_accepted(tmp_path: Path) -> None:
    """Write access to the store suffices neither to start an experiment nor to restore one."""
    key = tmp_path / "key"
    public, _ = generate_key(key)
    trusted = TrustedKeys.load(public)
    url, state_folder = str(tmp_path / "store"), tmp_path / "state"
    releases = ReleaseStore(url, trusted=trusted, signer=Signer.load(key))
    publish_toy(releases, tmp_path / "made")
    store = ExperimentStore(releases)
    store.start(experiment_of(releases, "first"))
    path = tmp_path / "store" / "experiments"
    running_file = path.read_bytes()
    store.end("first", "stopped")
    server = ExperimentStore(ReleaseStore(url, trusted=trusted, state_folder=state_folder))
    assert [each.is_running for each in server.all()] == [False]

    with pytest.raises(ArtifactError, match="sign the change with --signing-key"):
        server.start(experiment_of(releases, "second"))
    path.write_bytes(running_file)
    restarted = ExperimentStore(ReleaseStore(url, trusted=trusted, state_folder=state_folder))
    for each in (server, restarted):
        with pytest.raises(ArtifactError, match="older than one that was read before"):
            each.all()
    path.write_bytes(running_file.replace(b'"alpha": 0.05', b'"alpha": 0.15'))
    with pytest.raises(ArtifactError, match="signature was changed"):
        server.all()
    path.unlink()
    ExperimentStore(ReleaseStore(url)).start(experiment_of(releases, "third"))
    with pytest.raises(ArtifactError, match="is not signed"):
        server.all()
    path.unlink()
    store.start(experiment_of(releases, "fourth"))
    assert [each.name for each in server.all()] == ["fourth"]


def test_pruning_keeps_the_releases_of_a_running_experiment(
    releases: ReleaseStore, tmp_path: Path
) -> None:
    """The releases can be deleted once the experiment has ended."""
    store = ExperimentStore(releases)
    [old] = releases.ids()
    store.start(experiment_of(releases))
    newest = publish_toy(releases, tmp_path / "newer", seed=1)
    releases.promote(newest.release_id)
    pruned = prune(releases, keep=1)
    assert old in pruned.kept
    assert set(releases.ids()) == {old, newest.release_id}
    store.end("toy", "stopped")
    assert prune(releases, keep=1).releases == (old,)
