"""Functions that wait for conditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 120.0
"""A limit that ends a test that hangs, and that a heavily loaded machine does not reach."""
_CHECK_INTERVAL_S = 0.01


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, while the event loop runs.

    Raises:
        AssertionError: The condition did not hold within `WAIT_S` seconds.
    """
    deadline = time.monotonic() + WAIT_S
    while not condition():
        _check(deadline)
        await asyncio.sleep(_CHECK_INTERVAL_S)


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, and block the thread.

    Raises:
        AssertionError: The condition did not hold within `WAIT_S` seconds.
    """
    deadline = time.monotonic() + WAIT_S
    while not condition():
        _check(deadline)
        time.sleep(_CHECK_INTERVAL_S)


def _check(deadline: float) -> None:
    assert time.monotonic() < deadline, f"the condition did not hold within {WAIT_S:.0f} s"
