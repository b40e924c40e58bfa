"""The one interceptor: admission, deadline, errors to statuses, metrics."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from marquee_services.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidFields,
    Overloaded,
    ServiceError,
)
from marquee_services.server.metrics import Metrics
from marquee_services.server.status import (
    DETAILS_KEY,
    internal_details,
    status_code,
    status_details,
)

_log = structlog.get_logger()
_INTERNAL_MESSAGE = "internal error; the request id in the details names it in the server's log"

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Surrounds each call of our own services; health and reflection pass untouched."""

    def __init__(self, prefix: str, max_calls: int, default_deadline: float, metrics: Metrics):
        """Takes the prefix of our methods and the limits of the settings."""
        self._prefix = prefix
        self._max_calls = max_calls
        self._default_deadline = default_deadline
        self._metrics = metrics
        self._in_progress = 0
        # By method, so that a handler is wrapped once and not for each call.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the method's handler."""
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(self._prefix):
            return handler
        self._handlers[method] = self._wrapped(method.rsplit("/", 1)[-1], handler)
        return self._handlers[method]

    def _wrapped(
        self, name: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(name, handler.unary_stream),
                _tolerant(handler.request_deserializer),
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(name, handler.unary_unary),
            _tolerant(handler.request_deserializer),
            handler.response_serializer,
        )

    def _unary(self, name: str, behaviour: Any) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            with self._observed(name) as outcome:
                try:
                    self._admit()
                    _refuse_damaged(request)
                    async with asyncio.timeout(time_left(context, self._default_deadline)):
                        return await behaviour(request, context)
                except Exception as error:
                    await self._abort(error, name, context, outcome)

        return call

    def _streaming(self, name: str, behaviour: Any) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._observed(name) as outcome:
                try:
                    self._admit()
                    _refuse_damaged(request)
                    async with asyncio.timeout(time_left(context, self._default_deadline)):
                        async for response in behaviour(request, context):
                            yield response
                except Exception as error:
                    await self._abort(error, name, context, outcome)

        return call

    @contextmanager
    def _observed(self, name: str) -> Any:
        """Counts a call; `outcome["code"]` is its status code."""
        outcome = {"code": "OK"}
        start = time.perf_counter()
        self._in_progress += 1
        self._metrics.in_progress.set(self._in_progress)
        try:
            yield outcome
        except (asyncio.CancelledError, GeneratorExit):
            # A stream whose caller left is closed, not cancelled.
            outcome["code"] = "CANCELLED"
            raise
        finally:
            self._in_progress -= 1
            self._metrics.in_progress.set(self._in_progress)
            self._metrics.calls.labels(name, outcome["code"]).observe(time.perf_counter() - start)

    def _admit(self) -> None:
        if self._in_progress > self._max_calls:
            raise Overloaded(str(self._max_calls))

    async def _abort(
        self, error: Exception, name: str, context: Context, outcome: dict[str, str]
    ) -> NoReturn:
        if isinstance(error, TimeoutError):
            error = DeadlineExceeded()
        if isinstance(error, ServiceError):
            code, message, details = status_code(error), str(error), status_details(error)
        elif isinstance(error, grpc.aio.AbortError):
            raise error
        else:
            request_id = uuid.uuid4().hex
            _log.error("internal_error", method=name, request_id=request_id, exc_info=error)
            code, message = grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE
            details = internal_details(message, request_id)
        outcome["code"] = code.name
        await context.abort(code, message, ((DETAILS_KEY, details),))
        raise AssertionError("abort always raises")


class _Damaged:
    """Stands for a request whose bytes are no message."""


def _tolerant(deserialize: Any) -> Callable[[bytes], Any]:
    """Makes bytes that are no message the caller's error; gRPC would call them INTERNAL."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Damaged()

    return read


def _refuse_damaged(request: Any) -> None:
    if isinstance(request, _Damaged):
        raise InvalidFields([FieldViolation("", "the request is not a message of its type")])


def time_left(context: Context, default: float) -> float:
    """Seconds until the call's deadline, or the default when the caller set none."""
    # None without a deadline, whatever the stubs say.
    remaining = cast("float | None", context.time_remaining())
    return default if remaining is None else max(0.0, remaining)
