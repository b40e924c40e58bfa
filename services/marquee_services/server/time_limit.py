"""A time limit on a block of code that costs less than `asyncio.timeout`.

The interceptor enforces the deadlines of calls with it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class TimeLimit:
    """A context manager that cancels the current task when the time of its block is over.

    The block then ends with TimeoutError, like that of `asyncio.timeout`. Extending the time costs
    nothing: the timer checks it when it fires.
    """

    __slots__ = ("_cancelling", "_due", "_is_expired", "_loop", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        """Creates a limit for the current task.

        Args:
            seconds: Seconds from now that the block may take.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - coroutines run in tasks
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds
        self._is_expired = False

    def extend(self, seconds: float) -> None:
        """Extends the time that the block may take by some seconds."""
        self._due += seconds

    def end(self) -> None:
        """Ends the block, which must have been entered, as if its time were over."""
        self._due = 0.0
        self._fire()

    def __enter__(self) -> Self:
        self._timer = self._loop.call_at(self._due, self._fire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if (
            self._is_expired
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _fire(self) -> None:
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._fire)
            return
        if not self._is_expired:
            self._is_expired = True
            self._task.cancel()
