"""Reports calls of methods outside the server's own services to the connection guard.

These are health checks, which are answered under any load, and methods that do not exist. A client
can start and reset such calls too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from marquee_services.server.call_operations import abort, read
from marquee_services.server.connections.connection_guard import ConnectionGuard, Context


def guarded(
    handler: grpc.RpcMethodHandler[Any, Any] | None, guard: ConnectionGuard
) -> grpc.RpcMethodHandler[Any, Any] | None:
    """Wraps a handler so that the guard records how each call ends.

    Args:
        handler: The handler; None for a method that does not exist. Streaming handlers are returned
            unchanged, because their calls may last as long as the connection.
        guard: Records how each call ends.
    """
    if handler is None:
        return grpc.stream_unary_rpc_method_handler(_counted(_no_method, guard), None, None)
    if handler.unary_unary is None:
        return handler
    # The type stubs describe only the handlers of gRPC's synchronous server.
    deserialize: Any = handler.request_deserializer
    behaviour: Any = handler.unary_unary

    async def answer(context: Context) -> Any:
        data = await read(context)
        if data is grpc.aio.EOF:
            why = "the call has no request message"
            return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, why)
        return await behaviour(deserialize(data), context)

    return grpc.stream_unary_rpc_method_handler(
        _counted(answer, guard), None, handler.response_serializer
    )


async def _no_method(context: Context) -> Any:
    await read(context)  # Ends with CancelledError if the call has been reset.
    await abort(context, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def _counted(
    answer: Callable[[Context], Awaitable[Any]], guard: ConnectionGuard
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(_requests: Any, context: Context) -> Any:
        try:
            response = await answer(context)
        except asyncio.CancelledError:
            guard.record_reset(context)
            raise
        except Exception:
            guard.record_answer(context)
            raise
        guard.record_answer(context)
        return response

    return call
