"""The methods of a server, which gRPC looks up in one place.

gRPC's asyncio server waits for the next call of each registered method separately, and renews all
of these waits with every call. With the sixteen methods of a gateway, this takes a sixth of the
time of a bare call. Methods behind a generic handler share one wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import grpc


class MethodTable(grpc.GenericRpcHandler):
    """Finds the handlers of servicers that are added to it, instead of being added to a server."""

    def __init__(self) -> None:
        """Creates an empty table."""
        self._handlers: list[grpc.GenericRpcHandler] = []

    @property
    def as_server(self) -> grpc.aio.Server:
        """This table, for the functions `add_…_to_server`, which only add handlers."""
        return cast("grpc.aio.Server", self)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds handlers."""
        self._handlers += handlers

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Does not register methods; a generic handler with the same methods is added too."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the handler of a call; None if there is no such method."""
        found = (handler.service(handler_call_details) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)
