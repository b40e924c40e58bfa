"""A small thread pool with a bounded queue, for work that would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from marquee_services.server.micro_batcher import QueueFullError
from marquee_services.server.thread_pool import started_pool

_T = TypeVar("_T")


class WorkerThreads:
    """Runs short calls in threads. Work that hangs would keep the process from exiting."""

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        """Creates the pool, and starts its threads.

        Args:
            name: Prefix of the threads' names.
            threads: The number of threads.
            max_waiting: The most calls in progress or queued.
        """
        self._executor = started_pool(name, threads)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Runs a call in a thread, and returns its result or raises its error.

        A queued call whose task is cancelled, for example by a deadline, is not started.

        Raises:
            QueueFullError: Too many calls are in progress or queued.
        """
        if self._waiting >= self._max_waiting:
            raise QueueFullError(str(self._max_waiting))
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stops the threads once their current calls have returned; queued calls are dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)
