"""Waits for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_S = 120.0
"""Ends a run that hangs; far longer than a heavily loaded machine needs."""
_POLL_S = 0.02


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds.

    Args:
        condition: The condition.
        what: The event that makes it hold, for the error message.

    Raises:
        AssertionError: It did not hold within `WAIT_S`.
    """
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {WAIT_S:.0f} s"
        time.sleep(_POLL_S)
