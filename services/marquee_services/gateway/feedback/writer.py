"""Writes to the feedback log; queued calls share a transaction (group commit)."""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from marquee_core.feedback import events as core
from marquee_core.feedback.log import EventLog
from marquee_services.errors import EventIdReused, FeedbackUnavailable, Overloaded

_log = structlog.get_logger()
_T = TypeVar("_T")

MAX_WAITING = 128
"""Most calls that wait for the database.

This is far below the limit of calls in progress: a hanging database must not use up the slots of
calls that do not write.
"""

# Most events in one transaction.
_GROUP_EVENTS = 5_000
_STOP_TIMEOUT_S = 5.0
# SQLite runs in the writer's thread. When all cores are busy, answers have priority over it.
_NICENESS = 10


@dataclass(frozen=True, slots=True)
class _Write:
    """A queued write: a batch of events, or another operation."""

    batch: core.Batch = ()
    operation: Callable[[EventLog], Any] | None = None
    done: Future[Any] = field(default_factory=Future)


class FeedbackWriter:
    """Writes in a single thread. A write is acknowledged when it is durable."""

    def __init__(
        self,
        log: EventLog,
        timeout: float,
        on_write: Callable[[Sequence[core.LogEntry]], None],
    ) -> None:
        """Creates a writer; `start` starts its thread.

        Args:
            log: The log.
            timeout: Seconds that a call waits for the database.
            on_write: Called in the writer's thread after each transaction, with the entries that
                it wrote; without entries if they must be read from the log.
        """
        self._log = log
        self._timeout = timeout
        self._on_write = on_write
        self._waiting = 0
        self._is_failing = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="feedback-writer", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the queued writes and stops the thread; waits a few seconds at most."""
        self._queue.put(None)
        self._thread.join(_STOP_TIMEOUT_S)

    async def append(self, events: core.Batch) -> core.Appended:
        """Records a batch of events.

        Raises:
            EventIdReused: A different event with the id of one of the events has been recorded.
            FeedbackUnavailable: The database did not respond. The events may have been recorded.
            Overloaded: Too many calls wait for the database.
        """
        result: core.Appended = await self._submit(_Write(batch=events))
        return result

    async def run(self, operation: Callable[[EventLog], _T]) -> _T:
        """Runs another writing operation on the log, after the queued writes.

        Raises:
            FeedbackUnavailable: The database did not respond. The operation may have been done.
            Overloaded: Too many calls wait for the database.
        """
        result: _T = await self._submit(_Write(operation=operation))
        return result

    async def _submit(self, write: _Write) -> Any:
        if self._waiting >= MAX_WAITING:
            raise Overloaded(str(MAX_WAITING))
        self._waiting += 1
        # Not when the call ends: a write whose caller has gone is still waiting for the database.
        loop = asyncio.get_running_loop()
        write.done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        self._queue.put(write)
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(write.done)
        except TimeoutError as error:
            raise FeedbackUnavailable("the feedback log did not respond in time") from error
        except core.LogUnavailable as error:
            raise FeedbackUnavailable("the feedback log does not respond") from error
        except core.EventIdReused as error:
            raise EventIdReused(error.event_id) from error

    def _release(self) -> None:
        self._waiting -= 1

    def _run(self) -> None:
        if sys.platform == "linux":  # where threads have separate priorities
            thread = threading.get_native_id()
            present = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, present + _NICENESS)  # 19 at most
        while (write := self._queue.get()) is not None:
            group, following = self._group(write)
            group = [each for each in group if each.done.set_running_or_notify_cancel()]
            if group:
                self._append(group)
            if following is not None and following.done.set_running_or_notify_cancel():
                self._operate(following)

    def _group(self, first: _Write) -> tuple[list[_Write], _Write | None]:
        """Returns the batches to write in one transaction, and the operation that follows them."""
        group: list[_Write] = []
        size, write = 0, first
        while write.operation is None:
            group.append(write)
            size += len(write.batch)
            if size >= _GROUP_EVENTS:
                return group, None
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                return group, None
            if following is None:
                self._queue.put(None)
                return group, None
            write = following
        return group, write

    def _append(self, group: Sequence[_Write]) -> None:
        try:
            results = self._log.append([write.batch for write in group], limit_times=True)
        except Exception as error:
            self._log_outcome(error)
            for write in group:
                write.done.set_exception(error)
            return
        self._log_outcome(None)
        self._on_write(_entries(results))
        for write, result in zip(group, results, strict=True):
            if isinstance(result, core.EventIdReused):
                write.done.set_exception(result)
            else:
                write.done.set_result(result)

    def _operate(self, write: _Write) -> None:
        assert write.operation is not None  # noqa: S101 - see `_group`
        try:
            result = write.operation(self._log)
        except Exception as error:
            self._log_outcome(error)
            write.done.set_exception(error)
            return
        self._log_outcome(None)
        self._on_write(())
        write.done.set_result(result)

    def _log_outcome(self, error: Exception | None) -> None:
        """Logs the first failed write of an outage, and the first successful write after it."""
        if error is not None and not self._is_failing:
            _log.warning("feedback_writes_fail", log=self._log.name, error=str(error))
        elif error is None and self._is_failing:
            _log.info("feedback_writes_succeed", log=self._log.name)
        self._is_failing = error is not None


def _entries(results: Sequence[core.Appended | core.EventIdReused]) -> Sequence[core.LogEntry]:
    """Returns the entries of a transaction in the order of the log; none if some are unknown."""
    entries: list[core.LogEntry] = []
    for result in results:
        if isinstance(result, core.EventIdReused) or not result.entries:
            return ()
        entries += result.entries
    return entries
