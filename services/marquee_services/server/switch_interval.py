"""Shortens the turns in which threads hold the interpreter's lock, while others must not wait.

A call takes the lock several times. While another thread computes, it waits for up to the switch
interval each time, which is 5 ms by default.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
# The limits of the blocks in progress, which may begin and end in any order.
_limits: list[float] = []
# The process's own interval, saved while there are limits.
_own: list[float] = []


@contextmanager
def limit_switch_interval(seconds: float) -> Iterator[None]:
    """Limits the process's switch interval until the block exits.

    Concurrent blocks share the shortest of their limits. The process's own interval is restored
    when the last of them exits.

    Args:
        seconds: The longest switch interval, in seconds.
    """
    with _lock:
        if not _limits:
            _own.append(sys.getswitchinterval())
        _limits.append(seconds)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _limits.remove(seconds)
            _apply()
            if not _limits:
                _own.clear()


def _apply() -> None:
    """Sets the shortest of the process's own interval and the limits."""
    sys.setswitchinterval(min(*_own, *_limits) if _limits else _own[0])
