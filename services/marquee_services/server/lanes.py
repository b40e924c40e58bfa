"""Lanes: work for batches never goes before work that somebody waits for.

A call runs in the lane that its task's context names. The gateway puts the subjects of a batch into
the batch lane, calls to backends carry the lane as metadata, and the interceptor of the backend
sets it again. `MicroBatcher` and `LaneExecutor` keep a queue for each lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from enum import Enum
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_KEY = "marquee-lane"


class Lane(Enum):
    """Who waits for a piece of work, in the order of precedence."""

    INTERACTIVE = "interactive"  # a single call
    BATCH = "batch"  # a batch, which takes longer anyway


LANE: ContextVar[Lane] = ContextVar("lane", default=Lane.INTERACTIVE)
"""The lane of the current task."""


def lane_metadata() -> tuple[tuple[str, str], ...]:
    """The metadata that tells a backend the lane of the current task."""
    lane = LANE.get()
    return () if lane is Lane.INTERACTIVE else ((_KEY, lane.value),)


def lane_of(metadata: Sequence[tuple[str, Any]]) -> Lane:
    """The lane that a call's metadata names; the interactive one if it names none."""
    for key, value in metadata:
        if key == _KEY and value == Lane.BATCH.value:
            return Lane.BATCH
    return Lane.INTERACTIVE


class LaneExecutor(Executor):
    """One thread that takes work of the first lane that has any.

    Work whose future has been cancelled, because its caller has gone or its time is up, is not
    begun.
    """

    def __init__(self, name: str) -> None:
        """Starts the thread with the first piece of work.

        Args:
            name: Prefix of the thread's name.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queues: dict[Lane, deque[tuple[Future[Any], Callable[[], Any]]]] = {
            lane: deque() for lane in Lane
        }

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Queues work in the lane of the current task; see `Executor.submit`."""
        future: Future[_T] = Future()
        self._queues[LANE.get()].append((future, lambda: fn(*args, **kwargs)))
        self._thread.submit(self._run_next)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the thread; see `Executor.shutdown`."""
        self._thread.shutdown(wait, cancel_futures=cancel_futures)

    def _run_next(self) -> None:
        # There is a piece of work for each run: every `submit` adds one of both.
        future, work = next(queue for queue in self._queues.values() if queue).popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
