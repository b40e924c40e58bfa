"""Watches what a release that has just come into service answers, to take it back if that is bad.

Scoring that fails, or gives scores that are not finite, is watched in the backends
(`server/failure_watch.py`). Here it is about answers without items. Some users have rated everything,
so the release before is the measure: it must have answered well until the switch. Degraded answers
do not count: whatever the release is, an outage leaves them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

WATCH_S = 600.0
"""Seconds after a switch in which the new release is watched."""

MIN_ANSWERS = 20
"""Answers of each of the two releases before one of them is judged."""

MOST_BAD, LEAST_BETTER = 0.5, 0.1
"""A release is withdrawn if this share of its answers is bad, and the one before had less than the
second share."""

_HALF_LIFE = 200
_MOST_RELEASES = 8


@dataclass
class _Answers:
    """Numbers of answers; old ones count less."""

    total: float = 0.0
    bad: float = 0.0

    def add(self, is_bad: bool) -> None:
        if self.total >= 2 * _HALF_LIFE:
            self.total, self.bad = self.total / 2, self.bad / 2
        self.total += 1
        self.bad += is_bad

    @property
    def share(self) -> float:
        return self.bad / self.total if self.total else 0.0


class AnswerWatch:
    """Counts the answers of each release that are of no use."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, _Answers] = OrderedDict()
        self._before = ""
        self._switched_at = float("-inf")

    def switched(self, before: str) -> None:
        """Begins to watch the release that has come into service.

        Args:
            before: The id of the release that was in service; "" if there was none.
        """
        self._before = before
        self._switched_at = time.monotonic()

    def add(self, release_id: str, is_bad: bool) -> None:
        """Counts a computed answer of a release."""
        found = self._answers.get(release_id)
        if found is None:
            found = self._answers[release_id] = _Answers()
            if len(self._answers) > _MOST_RELEASES:
                self._answers.popitem(last=False)
        found.add(is_bad)

    def verdict(self, release_id: str) -> str:
        """Returns why the release in service should be withdrawn; "" if it should not."""
        own, before = self._answers.get(release_id), self._answers.get(self._before)
        if (
            own is None
            or before is None
            or time.monotonic() > self._switched_at + WATCH_S
            or min(own.total, before.total) < MIN_ANSWERS
            or own.share < MOST_BAD
            or before.share >= LEAST_BETTER
        ):
            return ""
        return (
            f"withdrawn: {own.share:.0%} of its answers have no items, but only "
            f"{before.share:.0%} of those of {self._before}"
        )
