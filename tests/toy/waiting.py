"""Functions that wait for conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 120.0
"""A limit that ends a test that hangs, and that a heavily loaded machine does not reach."""
PROCESS_S = 2 * WAIT_S
"""The same limit for a process, which may have to import TensorFlow."""
_CHECK_INTERVAL_S = 0.01


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, while the event loop runs.

    Raises:
        AssertionError: The condition did not hold within `WAIT_S` seconds.
    """
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {WAIT_S:.0f} s"
        await asyncio.sleep(_CHECK_INTERVAL_S)


def wait_until(
    condition: Callable[[], Any],
    limit_s: float = WAIT_S,
    what: str = "the condition",
    interval_s: float = _CHECK_INTERVAL_S,
) -> None:
    """Wait until a condition holds, and block the thread.

    Args:
        condition: The condition.
        limit_s: A limit in seconds that ends a test that hangs.
        what: What is waited for, for the error message.
        interval_s: Seconds between two checks.

    Raises:
        AssertionError: The condition did not hold within the limit.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit_s:.0f} s in vain for {what}"
        time.sleep(interval_s)
