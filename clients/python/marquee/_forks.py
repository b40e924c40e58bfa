"""Synchronises the calls of blocking clients with forks of the process.

A fork copies the memory of a process but only one of its threads. If another thread is executing
gRPC code at that moment, the child gets inconsistent gRPC state and crashes when it uses it. A fork
therefore waits for the calls in progress, for up to ten seconds, and new calls wait for the fork.
"""

from __future__ import annotations

import math
import os
import threading
import time
from types import TracebackType

# The maximum time that a fork waits, in seconds. After that, the process forks while calls are in
# progress, and gRPC may crash in the child.
MAX_WAIT_S = 10.0
# gRPC's internal threads finish a call shortly after it has returned.
_SETTLE_S = 0.03


class ForkGate:
    """A context manager, shared by threads, that a thread must enter to execute gRPC code."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._is_forking = False
        self._left_at = -math.inf

    def __enter__(self) -> None:
        with self._changed:
            while self._is_forking:
                self._changed.wait()
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._inside -= 1
            self._left_at = time.monotonic()
            if self._is_forking:
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Blocks other threads from entering, and waits up to `MAX_WAIT_S` until all have left."""
        with self._changed:
            # Two threads may fork at the same time.
            while self._is_forking:
                self._changed.wait()
            self._is_forking = True
            self._changed.wait_for(lambda: not self._inside, MAX_WAIT_S)
            time.sleep(max(0.0, self._left_at + _SETTLE_S - time.monotonic()))

    def after_fork_in_parent(self) -> None:
        """Allows threads to enter again."""
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Resets the gate, because the other threads do not exist in the child."""
        self._reset()


FORK_GATE = ForkGate()
"""The gate of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=FORK_GATE.before_fork,
        after_in_parent=FORK_GATE.after_fork_in_parent,
        after_in_child=FORK_GATE.after_fork_in_child,
    )
