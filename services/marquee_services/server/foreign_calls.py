"""Lets the connection guard see calls of methods that are not a server's own.

Health checks are answered whatever the load, and methods that nobody has are refused. A client can
begin and reset these as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from marquee_services.server.connection_guard import ConnectionGuard, Context


def watched(
    handler: grpc.RpcMethodHandler[Any, Any] | None, guard: ConnectionGuard
) -> grpc.RpcMethodHandler[Any, Any] | None:
    """The handler of a single call, with the guard told how the call ends.

    Args:
        handler: The handler; None for a method that does not exist. Those of streams are returned
            as they are: they may last for as long as the connection.
        guard: Is told.
    """
    if handler is None:
        return grpc.stream_unary_rpc_method_handler(_counted(_no_method, guard), None, None)
    if handler.unary_unary is None:
        return handler
    # The type stubs know handlers of gRPC's other server only.
    deserialize: Any = handler.request_deserializer
    behaviour: Any = handler.unary_unary

    async def answer(context: Context) -> Any:
        data = await context.read()
        if data is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no request message")
        return await behaviour(deserialize(data), context)

    return grpc.stream_unary_rpc_method_handler(
        _counted(answer, guard), None, handler.response_serializer
    )


async def _no_method(context: Context) -> Any:
    await context.read()  # Ends with CancelledError if the call has been reset.
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def _counted(
    answer: Callable[[Context], Awaitable[Any]], guard: ConnectionGuard
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(_requests: Any, context: Context) -> Any:
        try:
            response = await answer(context)
        except asyncio.CancelledError:
            guard.reset(context)
            raise
        except Exception:
            guard.answered(context)
            raise
        guard.answered(context)
        return response

    return call
