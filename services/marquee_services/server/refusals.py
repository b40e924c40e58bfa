"""Remembers which releases could not be loaded, why, and when to try them again."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

RETRY_S = 2.0
"""Seconds between looks at a refused release in the store."""


@dataclass
class _Refusal:
    # What the release's files in the store looked like; None to try again in any case.
    state: str | None
    next_look: float


class Refusals:
    """The releases that could not be loaded.

    Attributes:
        reasons: Why, by release id.
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
            why: Why, in words.
            state: The state of its files in the store: it is tried again once that changes. None if
                the cause may pass by itself, so that it is tried again in any case.
        """
        self.reasons[release_id] = why
        self._refusals[release_id] = _Refusal(state, time.monotonic() + RETRY_S)

    def remove(self, release_id: str) -> None:
        """Forgets that a release was refused."""
        self.reasons.pop(release_id, None)
        self._refusals.pop(release_id, None)

    def keep(self, release_ids: Collection[str]) -> None:
        """Forgets all releases but these."""
        for release_id in set(self.reasons) - set(release_ids):
            self.remove(release_id)

    def is_due(self, release_id: str) -> bool:
        """Whether it is time to look at a refused release again; then not again for a while."""
        refusal = self._refusals[release_id]
        if time.monotonic() < refusal.next_look:
            return False
        refusal.next_look = time.monotonic() + RETRY_S
        return True

    def has_changed(self, release_id: str, state: str) -> bool:
        """Whether a refused release is worth another try, given the present state of its files."""
        refused_state = self._refusals[release_id].state
        return refused_state is None or refused_state != state
