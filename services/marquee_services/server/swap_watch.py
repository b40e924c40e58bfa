"""Watches the first requests that a new release answers, to withdraw it if they fail."""

from __future__ import annotations

import time

WATCH_S = 600.0
"""Seconds after its loading in which a release is watched."""

MIN_FAILURES, MIN_SHARE = 5, 0.05
"""A release is withdrawn after this many failures, if they are this share of its requests."""


class SwapWatch:
    """Counts what one release answers."""

    def __init__(self) -> None:
        self._end = time.monotonic() + WATCH_S
        self._calls = 0
        self._failures = 0
        self._last = ""

    def add(self, error: BaseException | None) -> None:
        """Counts a request, which failed with an error or was answered."""
        self._calls += 1
        if error is not None:
            self._failures += 1
            self._last = repr(error)

    def verdict(self) -> str:
        """Why the release should be withdrawn; "" if it should not."""
        if (
            time.monotonic() > self._end
            or self._failures < MIN_FAILURES
            or self._failures < MIN_SHARE * self._calls
        ):
            return ""
        return (
            f"withdrawn: {self._failures} of {self._calls} requests failed after it was loaded, "
            f"the last one with {self._last}"
        )
