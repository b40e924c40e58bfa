"""Counts the empty answers of a new release, which is withdrawn if there are too many.

This module watches answers without items; the backends watch scoring that fails or yields scores
that are not finite (`server/releases/failure_watch.py`). Some users have rated every item, so the
new release is compared with the previous one, which must have had few empty answers. Degraded
answers do not count, because an outage affects every release.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

WATCH_S = 600.0
"""Seconds after a switch during which the new release is watched."""

MIN_ANSWERS = 20
"""The least number of answers of each of the two releases for a verdict."""

MAX_EMPTY, MAX_EMPTY_BEFORE = 0.5, 0.1
"""A release is withdrawn if at least the first share of its answers is empty, and less than the
second share of those of the previous release."""

_HALF_LIFE = 200
_MAX_RELEASES = 8


@dataclass
class _Answers:
    """Counts of answers, in which old answers have less weight."""

    total: float = 0.0
    empty: float = 0.0

    def add(self, is_empty: bool) -> None:
        if self.total >= 2 * _HALF_LIFE:
            self.total, self.empty = self.total / 2, self.empty / 2
        self.total += 1
        self.empty += is_empty

    @property
    def share(self) -> float:
        return self.empty / self.total if self.total else 0.0


class AnswerWatch:
    """Counts the empty answers of each release."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, _Answers] = OrderedDict()
        self._before = ""
        self._switched_at = float("-inf")

    def start(self, before: str) -> None:
        """Starts to watch the release that has come into service.

        Args:
            before: The id of the release that was in service; "" if there was none.
        """
        self._before = before
        self._switched_at = time.monotonic()

    def add(self, release_id: str, is_empty: bool) -> None:
        """Counts a computed answer of a release."""
        found = self._answers.get(release_id)
        if found is None:
            found = self._answers[release_id] = _Answers()
            if len(self._answers) > _MAX_RELEASES:
                self._answers.popitem(last=False)
        found.add(is_empty)

    def verdict(self, release_id: str) -> str:
        """Returns why the release in service should be withdrawn; "" if it should not."""
        own, before = self._answers.get(release_id), self._answers.get(self._before)
        if (
            own is None
            or before is None
            or time.monotonic() > self._switched_at + WATCH_S
            or min(own.total, before.total) < MIN_ANSWERS
            or own.share < MAX_EMPTY
            or before.share >= MAX_EMPTY_BEFORE
        ):
            return ""
        return (
            f"withdrawn: {own.share:.0%} of its answers have no items, but only "
            f"{before.share:.0%} of those of {self._before}"
        )
