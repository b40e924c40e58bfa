"""A daemon thread for work that may hang, such as reading a store."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]

_busy: set[BackgroundThread] = set()


class BackgroundThread:
    """Runs calls one after the other in a daemon thread.

    Executors of the standard library are joined when the process exits, so a hanging call would
    keep a server from exiting.
    """

    def __init__(self, name: str) -> None:
        """Creates the object; a thread with this name starts with the first call."""
        self._name = name
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Runs a call in the thread, and returns its result or raises its error."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put((loop, future, lambda: call(*arguments)))
        return await future

    def _work(self) -> None:
        while True:
            loop, future, call = self._jobs.get()
            _busy.add(self)
            try:
                result, error = call(), None
            except BaseException as raised:
                result, error = None, raised
            _busy.discard(self)
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # The loop was closed in the meantime.
                return
            # Do not keep the last call's objects alive while waiting for the next.
            del loop, future, call, result, error


def is_busy() -> bool:
    """Returns whether a call is in progress in any background thread."""
    return bool(_busy)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # A future does not accept this exception.
        future.set_exception(RuntimeError(repr(error)))
    else:
        future.set_exception(error)
