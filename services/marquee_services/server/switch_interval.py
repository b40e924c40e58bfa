"""Shortens the turns in which threads hold the interpreter's lock, while a release is loaded.

A call takes the lock several times. While another thread computes, it waits for up to the switch
interval each time, which is 5 ms by default.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SHORT_S = 0.0005

_lock = threading.Lock()
# The intervals to restore: one for each block in progress. The first is the process's own.
_saved: list[float] = []


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Shortens the process's switch interval until the last of the concurrent blocks exits."""
    with _lock:
        _saved.append(_saved[0] if _saved else sys.getswitchinterval())
        sys.setswitchinterval(min(_saved[0], _SHORT_S))
    try:
        yield
    finally:
        with _lock:
            own = _saved.pop()
            if not _saved:
                sys.setswitchinterval(own)
