"""Reads requests and ends calls with an error, without leaving anything in gRPC's memory.

gRPC (1.85) frees the memory of an operation, such as the request that it has received, when the
coroutine that awaits the operation continues. A task that is cancelled in the meantime does not
continue there, and the memory is never freed: half a kilobyte to 8 kB. Under overload, hundreds of
calls a minute are cancelled at this point. The functions of this module end such operations
after the task has been cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]


async def read(context: Context) -> Any:
    """Reads a call's request, and returns it serialised; `grpc.aio.EOF` if there is none.

    Args:
        context: The call; its handler must be of a type that streams requests.
    """
    return await _completed(context.read())


async def abort(
    context: Context,
    code: grpc.StatusCode,
    details: str,
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = (),
) -> None:
    """Ends a call with an error; the call's handler must then return.

    gRPC keeps the exception that `ServicerContext.abort` raises as long as the call, and raises it
    again after the handler has returned. The traceback of the exception holds every frame that it
    passes, and a frame that refers to the context would keep the call, its request and its memory
    in gRPC until the next garbage collection.

    Args:
        context: The call.
        code: The status code.
        details: The status message.
        trailing_metadata: The trailing metadata.

    Raises:
        CancelledError: The call's deadline has passed. gRPC has ended the call, and would fail to
            send the error without freeing its memory.
    """
    # None without a deadline, although the type stubs do not say so.
    remaining: float | None = context.time_remaining()
    if remaining is not None and remaining <= 0:
        raise asyncio.CancelledError
    try:
        await _completed(context.abort(code, details, trailing_metadata))
    except grpc.aio.AbortError as aborted:
        aborted.__context__ = aborted.__traceback__ = None


@types.coroutine
def _completed(operation: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Awaits an operation, which continues if the current task is cancelled.

    `asyncio.shield` would do the same with another task and another turn of the event loop.
    """
    try:
        while True:
            future = _next_future(operation)
            try:
                yield _Waiting(future)
            except asyncio.CancelledError:
                # If it is done, the callback runs in the next turn.
                future.add_done_callback(lambda _: _continue(operation))
                raise
    except StopIteration as end:
        return end.value


def _next_future(operation: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Runs an operation until it awaits a future.

    Raises:
        StopIteration: The operation is complete.
    """
    future: asyncio.Future[Any] = operation.send(None)
    future._asyncio_future_blocking = False
    return future


def _continue(operation: Coroutine[Any, Any, Any]) -> None:
    """Runs an operation to its end without a task."""
    # The call is over, so nobody is interested in the result or the error.
    with suppress(StopIteration, Exception):
        _next_future(operation).add_done_callback(lambda _: _continue(operation))


class _Waiting:
    """What the task awaits in place of the operation's future, which must not be cancelled.

    It has the methods of a future that `asyncio.Task` calls.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_future", "_is_cancelled")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._asyncio_future_blocking = True
        self._future = future
        self._is_cancelled = False

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._future.get_loop()

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        self._callback, self._context = callback, context
        self._future.add_done_callback(callback, context=context)

    def cancel(self, msg: str | None = None) -> bool:  # noqa: ARG002 - called by the task
        """Wakes the task, which then calls `result`; False if it has been woken already."""
        if self._is_cancelled or self._future.done():
            return False
        self._is_cancelled = True
        self._future.remove_done_callback(self._callback)
        self.get_loop().call_soon(self._callback, self, context=self._context)
        return True

    def result(self) -> None:
        raise asyncio.CancelledError
