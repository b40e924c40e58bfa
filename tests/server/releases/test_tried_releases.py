"""What a release's trial has checked is not checked again beside calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from marquee_core.errors import ArtifactError
from marquee_core.release.store import ReleaseStore
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_services.gateway.releases.release import load_gateway_release
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.releases.trial import ReleaseTrial
from toy import release as toy_release
from toy.bare_release import make_release

FIRST, SECOND = "20260101T000000Z-00000000", "20260102T000000Z-00000000"


@dataclass
class Loaded:
    """A loaded release without any content."""

    release_id: str
    was_tried: bool


class PassingTrial(ReleaseTrial):
    """A trial that every release passes."""

    def __init__(self) -> None:
        """Create the trial, which needs no processes."""
        self.began_while_serving: list[bool] = []

    async def run(self, release_id: str, digest: str, is_serving: bool) -> None:
        """Pass a release."""
        self.began_while_serving.append(is_serving)


async def test_only_a_release_that_has_passed_its_trial_is_loaded_as_tried(tmp_path: Path) -> None:
    """The first release of a server without another one has no trial."""
    store = ReleaseStore(str(tmp_path / "store"))
    follower = ReleaseFollower(
        store,
        lambda release_id: Loaded(release_id, was_tried=False),
        0.05,
        2,
        trial=PassingTrial(),
        load_tried=lambda release_id: Loaded(release_id, was_tried=True),
    )
    for release_id, was_tried in ((FIRST, False), (SECOND, True)):
        folder = tmp_path / release_id
        store.publish(folder, make_release(folder, release_id=release_id))
        store.promote(release_id)
        await follower.poll()
        assert follower.newest() == Loaded(release_id, was_tried)


async def test_a_trial_gives_way_only_if_the_server_has_a_release(tmp_path: Path) -> None:
    """A server that starts on a busy machine has no calls to delay, and must be ready soon."""
    store, trial = ReleaseStore(str(tmp_path / "store")), PassingTrial()
    for release_id in (FIRST, SECOND):
        folder = tmp_path / release_id
        store.publish(folder, make_release(folder, release_id=release_id))
    for release_id in (FIRST, SECOND):
        store.promote(release_id)
    follower = ReleaseFollower(store, lambda name: Loaded(name, True), 0.05, 2, trial=trial)
    for release_id in (SECOND, FIRST):
        store.promote(release_id)
        await follower.poll()
    assert trial.began_while_serving == [False, True]


def test_the_gateway_checks_precomputed_pages_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial refuses pages that belong to other users; the gateway does not check them again."""
    made = toy_release.toy_pages

    def swapped(*arguments: object) -> PrecomputedPages:
        pages = made(*arguments)  # type: ignore[arg-type]
        users = range(len(pages.offsets) - 1)
        return PrecomputedPages.of([pages.get(user) for user in reversed(users)])

    monkeypatch.setattr(toy_release, "toy_pages", swapped)
    store = ReleaseStore(str(tmp_path / "store"))
    manifest = toy_release.publish_toy(store, tmp_path / "made", backends=(), precomputed=True)
    with pytest.raises(ArtifactError, match="belongs to another user"):
        load_gateway_release(store, manifest.release_id, tmp_path / "cache")
    loaded = load_gateway_release(store, manifest.release_id, tmp_path / "cache", was_tried=True)
    assert loaded.precomputed_pages.get(0)
