"""A clock for code whose time is simulated."""

from __future__ import annotations


class Clock:
    """A clock that the test sets.

    Attributes:
        now: The time in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        """Start at a time in seconds."""
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now
