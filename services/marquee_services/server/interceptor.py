"""The one interceptor: admission, deadline, errors to statuses, metrics."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, Self, cast

import grpc
import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Histogram

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
    """Surrounds each call of our own services; health and reflection pass untouched.

    Attributes:
        in_progress: Calls in progress.
    """

    def __init__(self, prefix: str, max_calls: int, default_deadline: float, metrics: Metrics):
        """Takes the prefix of our methods and the limits of the settings."""
        self._prefix = prefix
        self._max_calls = max_calls
        self._default_deadline = default_deadline
        self._metrics = metrics
        self.in_progress = 0
        metrics.in_progress.set_function(lambda: self.in_progress)
        # By method, so that a handler is wrapped once and not for each call.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        # By method and code: a look-up in the metric itself costs more than counting does.
        self._seconds: dict[tuple[str, str], Histogram] = {}

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
                _unless_bytes(handler.response_serializer),
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(name, handler.unary_unary),
            _tolerant(handler.request_deserializer),
            _unless_bytes(handler.response_serializer),
        )

    def _unary(self, name: str, behaviour: Any) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            with _Observed(self, name) as observed:
                try:
                    self._admit()
                    _refuse_damaged(request)
                    async with asyncio.timeout(time_left(context, self._default_deadline)):
                        return await behaviour(request, context)
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def _streaming(self, name: str, behaviour: Any) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with _Observed(self, name) as observed:
                try:
                    self._admit()
                    _refuse_damaged(request)
                    async with asyncio.timeout(time_left(context, self._default_deadline)):
                        async for response in behaviour(request, context):
                            yield response
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def seconds_of(self, name: str, code: str) -> Histogram:
        """The histogram of a method's calls that end with a status code."""
        found = self._seconds.get((name, code))
        if found is None:
            found = self._seconds[name, code] = self._metrics.calls.labels(name, code)
        return found

    def _admit(self) -> None:
        if self.in_progress > self._max_calls:
            raise Overloaded(str(self._max_calls))

    async def _abort(self, error: Exception, context: Context, observed: _Observed) -> NoReturn:
        if isinstance(error, TimeoutError):
            error = DeadlineExceeded()
        if isinstance(error, ServiceError):
            code, message, details = status_code(error), str(error), status_details(error)
        elif isinstance(error, grpc.aio.AbortError):
            raise error
        else:
            request_id = uuid.uuid4().hex
            _log.error(
                "internal_error", method=observed.name, request_id=request_id, exc_info=error
            )
            code, message = grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE
            details = internal_details(message, request_id)
        observed.code = code.name
        await context.abort(code, message, ((DETAILS_KEY, details),))
        raise AssertionError("abort always raises")


class _Observed:
    """Counts and times a call.

    Attributes:
        name: The method's.
        code: The status code that the call ends with.
    """

    __slots__ = ("_calls", "_start", "code", "name")

    def __init__(self, calls: CallInterceptor, name: str) -> None:
        self._calls = calls
        self.name = name
        self.code = "OK"

    def __enter__(self) -> Self:
        self._calls.in_progress += 1
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        # A stream whose caller left is closed, not cancelled.
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.code = "CANCELLED"
        self._calls.in_progress -= 1
        seconds = time.perf_counter() - self._start
        self._calls.seconds_of(self.name, self.code).observe(seconds)


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


def _unless_bytes(serialize: Any) -> Callable[[Any], bytes]:
    """Lets a handler answer with bytes, those of its message."""

    def write(response: Any) -> bytes:
        return response if type(response) is bytes else serialize(response)

    return write


def _refuse_damaged(request: Any) -> None:
    if isinstance(request, _Damaged):
        raise InvalidFields([FieldViolation("", "the request is not a message of its type")])


def time_left(context: Context, default: float) -> float:
    """Seconds until the call's deadline, or the default when the caller set none."""
    # None without a deadline, whatever the stubs say.
    remaining = cast("float | None", context.time_remaining())
    return default if remaining is None else max(0.0, remaining)
