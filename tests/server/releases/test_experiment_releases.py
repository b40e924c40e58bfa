"""Releases loaded for an experiment do not affect promotions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from marquee_core.errors import ArtifactError
from marquee_core.experiments.experiment import Arm
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.store import ReleaseStore
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.releases.trial import ReleaseTrial
from toy.bare_release import make_release

CONTROL, CANDIDATE = "20260101T000000Z-00000000", "20260102T000000Z-00000000"


@dataclass
class Loaded:
    """A loaded release without any content."""

    release_id: str


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    """A store whose only promotion is that of an experiment's control."""
    created = ReleaseStore(str(tmp_path / "store"))
    for release_id in (CONTROL, CANDIDATE):
        folder = tmp_path / release_id
        created.publish(folder, make_release(folder, release_id=release_id))
    created.promote(CONTROL)
    arms = Arm("control", CONTROL, 50.0), Arm("candidate", CANDIDATE, 50.0)
    ExperimentStore(created).create("running", arms)
    return created


class RefusingTrial(ReleaseTrial):
    """A trial that no release passes."""

    def __init__(self) -> None:
        """Create the trial, which needs no processes."""

    async def run(self, release_id: str, digest: str, is_serving: bool) -> None:
        """Refuse a release."""
        raise ArtifactError(f"{release_id} would take the server down")


async def test_a_starting_server_tries_the_arms_of_an_experiment(
    store: ReleaseStore,
) -> None:
    """The control serves without them, so a trial is possible despite a single promotion."""
    follower = ReleaseFollower(store, Loaded, 0.05, 2, trial=RefusingTrial())
    await follower.poll()
    assert [release.release_id for release in follower.releases] == [CONTROL]
    assert follower.refused == {CANDIDATE: f"{CANDIDATE} would take the server down"}


async def test_a_refused_arm_is_tried_again_when_it_is_promoted(store: ReleaseStore) -> None:
    """Promoting a release again always repeats its trial, even if its files have not changed."""
    is_good = False

    def load(release_id: str) -> Loaded:
        if release_id == CANDIDATE and not is_good:
            raise ArtifactError("it took too long")
        return Loaded(release_id)

    follower = ReleaseFollower(store, load, 0.05, 2)
    await follower.poll()
    assert CANDIDATE in follower.refused
    is_good = True
    store.promote(CANDIDATE)
    await follower.poll()
    assert follower.newest().release_id == CANDIDATE


async def test_a_release_is_not_withdrawn_for_one_that_was_never_promoted(
    store: ReleaseStore,
) -> None:
    """An arm is withdrawn in favour of the release in production, but not the other way round."""
    follower = ReleaseFollower(store, Loaded, 0.05, 2)
    await follower.poll()
    assert len(follower.releases) == 2
    assert follower.has_promoted(CONTROL)
    assert not follower.has_promoted(CANDIDATE)

    async def fail() -> None:
        raise RuntimeError("a defect")

    for release_id in (CONTROL, CANDIDATE):
        for _ in range(50):
            with pytest.raises(RuntimeError):
                await follower.watch_failures(release_id, fail())
    assert list(follower.refused) == [CANDIDATE]
