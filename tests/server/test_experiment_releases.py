"""Releases that a server loads for an experiment take no part in what promotions decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from marquee_core.errors import ArtifactError
from marquee_core.experiments.experiment import Arm
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.store import ReleaseStore
from marquee_services.server.follower import ReleaseFollower
from marquee_services.server.trial import ReleaseTrial
from toy.bare_release import make_release

CONTROL, CANDIDATE = "20260101T000000Z-00000000", "20260102T000000Z-00000000"


@dataclass
class Loaded:
    """A release of which nothing is loaded."""

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


class Refusing(ReleaseTrial):
    """A trial that no release passes."""

    def __init__(self) -> None:
        """Needs no processes."""

    async def run(self, release_id: str, digest: str) -> None:
        """Refuses a release."""
        raise ArtifactError(f"{release_id} would take the server down")


async def test_a_server_that_starts_tries_the_arms_of_an_experiment_first(
    store: ReleaseStore,
) -> None:
    """There is a release that serves without them, even if it is the first one ever promoted."""
    follower = ReleaseFollower(store, Loaded, 0.05, 2, trial=Refusing())
    await follower.poll()
    assert [release.release_id for release in follower.releases] == [CONTROL]
    assert follower.refused == {CANDIDATE: f"{CANDIDATE} would take the server down"}


async def test_a_refused_arm_gets_another_try_when_it_is_promoted(store: ReleaseStore) -> None:
    """As any release that is promoted again, although its files have not changed."""
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
    """An arm is withdrawn for the release in production, but not the other way round."""
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
