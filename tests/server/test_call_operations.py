"""Operations of calls that are cancelled, or that come too late, leave nothing in gRPC's memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from marquee_services.server.call_operations import abort, read

_CALLS, _AT_ONCE = 1_000, 50
# Without the functions under test it is more than 500; noise is a few bytes.
_MAX_BYTES_PER_CALL = 200
_TRAILERS = (("x-request-id", "a" * 32), ("grpc-status-details-bin", b"b" * 120))

Context = grpc.aio.ServicerContext[Any, Any]


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _bytes_in_use() -> int:
    """Return the bytes that are allocated with `malloc` by the main thread."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("the C library does not report its allocations")
    mallinfo.restype = _Mallinfo
    gc.collect()
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def _cancel_soon() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


@asynccontextmanager
async def _calling(answer: Callable[[Any, Context], Awaitable[Any]]) -> AsyncIterator[Any]:
    """Yield a callable that calls the only method of a server, which `answer` handles."""

    class Handlers(grpc.GenericRpcHandler):
        def service(self, _details: grpc.HandlerCallDetails) -> Any:
            return grpc.stream_unary_rpc_method_handler(answer, None, None)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary("/a.Service/Method")
    await server.stop(0)


async def _cancelled_while_reading(context: Context) -> None:
    _cancel_soon()
    with suppress(asyncio.CancelledError):
        await read(context)
    await abort(context, grpc.StatusCode.CANCELLED, "cancelled", _TRAILERS)


async def _cancelled_while_aborting(context: Context) -> None:
    await read(context)
    _cancel_soon()
    await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", _TRAILERS)


async def _aborts_too_late(context: Context) -> None:
    await read(context)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:  # At the deadline.
        await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "late", _TRAILERS)


@pytest.mark.parametrize(
    ("behaviour", "timeout"),
    [(_cancelled_while_reading, 60.0), (_cancelled_while_aborting, 60.0), (_aborts_too_late, 0.2)],
)
async def test_calls_that_end_early_free_their_memory(
    behaviour: Callable[[Context], Awaitable[None]], timeout: float
) -> None:
    """A cancelled task awaits the operation no longer, but gRPC frees its memory only then."""

    async def answer(_requests: Any, context: Context) -> bytes:
        await behaviour(context)
        return b""

    async with _calling(answer) as call:

        async def ends_with_an_error() -> bool:
            try:
                await call(b"x" * 200, timeout=timeout)
            except grpc.aio.AioRpcError:
                return True
            return False

        async def load(calls: int) -> None:
            for _ in range(calls // _AT_ONCE):
                ended = await asyncio.gather(*(ends_with_an_error() for _ in range(_AT_ONCE)))
                assert all(ended)

        await load(_CALLS)
        before = _bytes_in_use()
        await load(_CALLS)
        assert _bytes_in_use() - before < _MAX_BYTES_PER_CALL * _CALLS


async def test_an_operation_that_is_not_cancelled_returns_its_result() -> None:
    """A request is read, and the error and its details reach the caller."""
    found: list[Any] = []

    async def answer(_requests: Any, context: Context) -> None:
        found.append(await read(context))
        await abort(context, grpc.StatusCode.ABORTED, "why", _TRAILERS)

    async with _calling(answer) as call:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"request", timeout=60)
    assert found == [b"request"]
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, "why")
    trailers = dict(caught.value.trailing_metadata() or ())
    assert trailers == dict(_TRAILERS)


async def test_an_operation_ends_although_its_task_was_cancelled_twice() -> None:
    """A time limit and gRPC may cancel a call in the same turn of the event loop."""
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    class FakeContext:
        async def read(self) -> bytes:
            await arrived
            ended.set()
            return b"request"

    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, why: failed.append(why))
    context: Any = FakeContext()
    task = asyncio.create_task(read(context))
    await asyncio.sleep(0)
    assert task.cancel()
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not arrived.done()
    arrived.set_result(None)
    await asyncio.wait_for(ended.wait(), 60)
    assert not failed


async def test_a_task_that_is_cancelled_as_its_operation_ends_is_cancelled() -> None:
    """The operation has its result, but the task has not continued yet."""
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    class FakeContext:
        async def read(self) -> bytes:
            await arrived
            ended.set()
            return b"request"

    context: Any = FakeContext()
    task = asyncio.create_task(read(context))
    await asyncio.sleep(0)
    arrived.set_result(None)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 60)
