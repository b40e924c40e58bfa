"""Priorities: work for batches runs only when no interactive call has work to do.

The priority of a call is a context variable of its task. The gateway gives the subjects of a batch
the batch priority. Calls to backends carry the priority as metadata, from which the backend's
interceptor sets it again. `MicroBatcher` and `PriorityExecutor` keep one queue for each priority.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from enum import Enum
from typing import Any, ParamSpec, TypeVar

from marquee_services.server.thread_pool import started_pool

_P = ParamSpec("_P")
_T = TypeVar("_T")

_KEY = "marquee-lane"


class Priority(Enum):
    """The priority of a piece of work, highest first."""

    # Faster than that of `Enum`, which hashes the name; members are equal only to themselves.
    __hash__ = object.__hash__

    INTERACTIVE = "interactive"  # single calls
    BATCH = "batch"  # subjects of a batch, which takes longer anyway


PRIORITY: ContextVar[Priority] = ContextVar("priority", default=Priority.INTERACTIVE)
"""The priority of the current task."""


def priority_metadata() -> tuple[tuple[str, str], ...]:
    """Returns the metadata that passes the current task's priority to a backend."""
    priority = PRIORITY.get()
    return () if priority is Priority.INTERACTIVE else ((_KEY, priority.value),)


def priority_of(metadata: Sequence[tuple[str, Any]]) -> Priority:
    """Returns the priority in a call's metadata; interactive if there is none."""
    for key, value in metadata:
        if key == _KEY and value == Priority.BATCH.value:
            return Priority.BATCH
    return Priority.INTERACTIVE


# Runs the interactive work that waits for the current thread, if that thread does batch work.
_INTERRUPT: ContextVar[Callable[[], None] | None] = ContextVar("interrupt", default=None)


def give_way() -> None:
    """Runs the interactive work that is queued behind the batch work of the current thread.

    To be called between two steps of work that may belong to a batch; does nothing elsewhere.
    """
    interrupt = _INTERRUPT.get()
    if interrupt is not None:
        interrupt()


class PriorityExecutor(Executor):
    """A single thread that runs the work with the highest priority first.

    Interactive work also runs in the middle of batch work that calls `give_way`. Work whose future
    has been cancelled, because its caller has gone or its deadline has passed, is not started.
    """

    def __init__(self, name: str) -> None:
        """Creates the executor, and starts its thread.

        Args:
            name: Prefix of the thread's name.
        """
        self._thread = started_pool(name, 1)
        self._queues: dict[Priority, deque[tuple[Future[Any], Callable[[], Any]]]] = {
            priority: deque() for priority in Priority
        }

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Queues work with the priority of the current task; see `Executor.submit`."""
        future: Future[_T] = Future()
        self._queues[PRIORITY.get()].append((future, lambda: fn(*args, **kwargs)))
        self._thread.submit(self._run_next)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stops the thread; see `Executor.shutdown`."""
        self._thread.shutdown(wait, cancel_futures=cancel_futures)

    def _run_next(self) -> None:
        """Runs a piece of work, if it has not run already in the middle of another."""
        for priority, queue in self._queues.items():
            if queue:
                interrupt = self._run_interactive if priority is Priority.BATCH else None
                token = _INTERRUPT.set(interrupt)
                try:
                    _run(*queue.popleft())
                finally:
                    _INTERRUPT.reset(token)
                return

    def _run_interactive(self) -> None:
        """Runs the interactive work that is queued now."""
        queue = self._queues[Priority.INTERACTIVE]
        token = _INTERRUPT.set(None)
        try:
            for _ in range(len(queue)):
                _run(*queue.popleft())
        finally:
            _INTERRUPT.reset(token)


def _run(future: Future[_T], work: Callable[[], _T]) -> None:
    """Runs work unless it was cancelled, and settles its future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        del future  # The error's traceback holds this frame: they would keep each other in memory.
    else:
        future.set_result(result)
