"""A few threads for work that would hold up the event loop, with a bound on what waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from marquee_services.server.micro_batcher import QueueFullError

_T = TypeVar("_T")


class WorkerThreads:
    """Runs short calls in threads. Work that never ends would keep the process from ending."""

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        """Starts no thread yet.

        Args:
            name: Prefix of the threads' names.
            threads: The number of threads.
            max_waiting: Most calls in progress or waiting.
        """
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, work: Callable[[], _T]) -> _T:
        """Makes a call in a thread, and returns its result or raises its error.

        A call whose caller is cancelled, for example by its deadline, does not start any more.

        Raises:
            QueueFullError: Too many calls wait.
        """
        if self._waiting >= self._max_waiting:
            raise QueueFullError(str(self._max_waiting))
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the threads once their present calls have ended."""
        self._executor.shutdown(wait=False, cancel_futures=True)
