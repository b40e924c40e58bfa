"""Records which releases could not be loaded, why, and when to try them again."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

RETRY_S = 2.0
"""Seconds between checks of a refused release in the store."""


@dataclass
class _Refusal:
    # The state of the release's files in the store; None to retry in any case.
    state: str | None
    next_check: float


class RefusedReleases:
    """The releases that could not be loaded.

    Attributes:
        reasons: Why each release was refused, by release id.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._refusals: dict[str, _Refusal] = {}

    def __contains__(self, release_id: str) -> bool:
        return release_id in self.reasons

    def add(self, release_id: str, why: str, state: str | None) -> None:
        """Refuses a release.

        Args:
            release_id: The release.
            why: The reason, in words.
            state: The state of its files in the store; the release is tried again once it changes.
                None for a transient cause, after which the release is tried again in any case.
        """
        self.reasons[release_id] = why
        self._refusals[release_id] = _Refusal(state, time.monotonic() + RETRY_S)

    def remove(self, release_id: str) -> None:
        """Removes a release, which is then no longer refused."""
        self.reasons.pop(release_id, None)
        self._refusals.pop(release_id, None)

    def keep(self, release_ids: Collection[str]) -> None:
        """Removes all releases except the given ones."""
        for release_id in set(self.reasons) - set(release_ids):
            self.remove(release_id)

    def is_due(self, release_id: str) -> bool:
        """Returns whether it is time to check a refused release, and schedules the next check."""
        refusal = self._refusals[release_id]
        if time.monotonic() < refusal.next_check:
            return False
        refusal.next_check = time.monotonic() + RETRY_S
        return True

    def has_changed(self, release_id: str, state: str) -> bool:
        """Returns whether to try a refused release again, given the current state of its files."""
        refused_state = self._refusals[release_id].state
        return refused_state is None or refused_state != state
