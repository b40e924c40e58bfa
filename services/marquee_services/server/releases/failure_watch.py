"""Counts the failures of a newly loaded release, which is withdrawn if there are too many."""

from __future__ import annotations

import time

WATCH_S = 600.0
"""Seconds for which a release is watched after it was loaded."""

MIN_FAILURES, MIN_SHARE = 5, 0.05
"""A release is withdrawn after this many failures, if they are at least this share of requests."""


class FailureWatch:
    """Counts the requests and failures of a release."""

    def __init__(self) -> None:
        self._end = time.monotonic() + WATCH_S
        self._calls = 0
        self._failures = 0
        self._last = ""

    def add(self, error: BaseException | None) -> None:
        """Counts a request, which failed with the given error or succeeded (None)."""
        self._calls += 1
        if error is not None:
            self._failures += 1
            self._last = repr(error)

    def verdict(self) -> str:
        """Returns why the release should be withdrawn; "" if it should not."""
        if (
            time.monotonic() > self._end
            or self._failures < MIN_FAILURES
            or self._failures < MIN_SHARE * self._calls
        ):
            return ""
        return (
            f"withdrawn: {self._failures} of {self._calls} requests failed after it was loaded, "
            f"the last with {self._last}"
        )
