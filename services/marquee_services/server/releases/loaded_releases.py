"""The releases in the memory of a server, in order of promotion, and their last use."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Generic, Protocol, TypeVar

from marquee_services.errors import NoRelease, ReleaseNotFound
from marquee_services.server.releases.failure_watch import FailureWatch


class LoadedRelease(Protocol):
    """A release in the memory of a server."""

    @property
    def release_id(self) -> str:
        """The release's id."""


R = TypeVar("R", bound=LoadedRelease)


class LoadedReleases(Generic[R]):
    """The loaded releases in order of promotion.

    Releases that are loaded only for an experiment come before the promoted ones. Iterating yields
    the ids, the newest release last.
    """

    def __init__(self) -> None:
        self._releases: dict[str, R] = {}
        self._last_used: dict[str, float] = {}
        self._experiment_only: set[str] = set()
        self._watches: dict[str, FailureWatch] = {}

    def __contains__(self, release_id: str) -> bool:
        return release_id in self._releases

    def __iter__(self) -> Iterator[str]:
        return iter(self._releases)

    def __len__(self) -> int:
        return len(self._releases)

    @property
    def newest_first(self) -> list[R]:
        """The releases, the most recently promoted first."""
        return list(reversed(self._releases.values()))

    def get(self, release_id: str) -> R:
        """Returns a release, and marks it as used.

        Raises:
            ReleaseNotFound: The release is not loaded.
        """
        if release_id not in self._releases:
            raise ReleaseNotFound(release_id)
        self.mark_used(release_id)
        return self._releases[release_id]

    def mark_used(self, release_id: str) -> None:
        """Records that a release is in use, if it is loaded."""
        if release_id in self._releases:
            self._last_used[release_id] = time.monotonic()

    def newest(self) -> R:
        """Returns the most recently promoted release.

        Raises:
            NoRelease: No release has been loaded yet.
        """
        if not self._releases:
            raise NoRelease
        return next(reversed(self._releases.values()))

    def is_promoted(self, release_id: str) -> bool:
        """Returns whether a release is loaded because of a promotion, not only an experiment."""
        return release_id in self._releases and release_id not in self._experiment_only

    def other_promoted(self, release_id: str) -> list[str]:
        """Returns the ids of the promoted releases other than the given one."""
        return [name for name in self if name != release_id and self.is_promoted(name)]

    def watch(self, release_id: str) -> FailureWatch | None:
        """Returns the counter of a release's failures; None if the release is not loaded."""
        return self._watches.get(release_id)

    def add_newest(self, release: R) -> None:
        """Adds a release, or moves a loaded one, as the most recently promoted."""
        self._releases.pop(release.release_id, None)
        self._releases[release.release_id] = release
        self._experiment_only.discard(release.release_id)
        self._start_use(release.release_id)

    def add_for_experiment(self, release: R) -> None:
        """Adds a release that is loaded only for an experiment."""
        self._releases = {release.release_id: release, **self._releases}
        self._experiment_only.add(release.release_id)
        self._start_use(release.release_id)

    def replace(self, release: R) -> None:
        """Replaces the loaded release with the same id."""
        self._releases[release.release_id] = release

    def drop(self, release_id: str) -> None:
        """Removes a release."""
        self._watches.pop(release_id, None)
        self._experiment_only.discard(release_id)
        self._releases.pop(release_id, None)
        self._last_used.pop(release_id, None)

    def beyond(self, limit: int, kept: Collection[str]) -> list[str]:
        """Returns the releases to drop, the least recently used first.

        Args:
            limit: The most releases to hold, in addition to `kept`.
            kept: Releases that are neither dropped nor counted; the newest is not dropped either.
        """
        others = [name for name in list(self._releases)[:-1] if name not in kept]
        others.sort(key=self._last_used.__getitem__)
        return others[: max(0, len(others) - limit + 1)]

    def _start_use(self, release_id: str) -> None:
        self._watches[release_id] = FailureWatch()
        self.mark_used(release_id)
