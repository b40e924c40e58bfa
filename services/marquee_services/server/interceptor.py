"""The interceptor around each call: load shedding, deadline, error details, metrics.

Deadlines are enforced here: a call that passes its deadline is cancelled and ends with
DEADLINE_EXCEEDED.
"""

from __future__ import annotations

import asyncio
import time
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
from marquee_services.server.access import AccessControl
from marquee_services.server.call_scope import REQUEST_ID_KEY, CallScope
from marquee_services.server.metrics import Metrics
from marquee_services.server.status import (
    DETAILS_KEY,
    internal_details,
    reason_name,
    status_details,
)

_log = structlog.get_logger()
_INTERNAL_MESSAGE = (
    "internal error; the server's log has it under the request id in the error details"
)

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of some services; calls of other services pass through unchanged.

    Attributes:
        in_progress: Number of calls in progress.
    """

    def __init__(
        self,
        prefixes: tuple[str, ...],
        max_calls: int,
        default_deadline: float,
        metrics: Metrics,
        access: AccessControl | None = None,
        probes: frozenset[str] = frozenset(),
    ):
        """Takes the services to wrap, and the limits.

        Args:
            prefixes: Prefix of each service's methods, `/<full name of the service>/`. The services
                have no method name in common.
            max_calls: Most calls in progress at once; further calls are refused.
            default_deadline: Deadline in seconds of calls whose client set none.
            metrics: Receives the number of calls in progress and their latencies.
            access: Decides which calls are accepted; None to accept all.
            probes: Names of methods that only ask for the server's state: they do not count as
                calls, and nothing is recorded about them.
        """
        self._prefixes = prefixes
        self._max_calls = max_calls
        self._default_deadline = default_deadline
        self._metrics = metrics
        self._access = access
        self._probes = probes
        metrics.limit.set(max_calls)
        self.in_progress = 0
        metrics.in_progress.set_function(lambda: self.in_progress)
        # Wrapped handlers by method, so that each is wrapped only once.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        # Histograms by method and status code: `labels()` costs more than an observation.
        self._seconds: dict[tuple[str, str], Histogram] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the wrapped handler of a method of the services."""
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(self._prefixes):
            return handler
        self._handlers[method] = self._wrap(method, handler)
        return self._handlers[method]

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        name = method.rsplit("/", 1)[-1]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(name, method, handler.unary_stream),
                _checked_deserializer(handler.request_deserializer),
                _bytes_or_serialized(handler.response_serializer),
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(name, method, handler.unary_unary),
            _checked_deserializer(handler.request_deserializer),
            _bytes_or_serialized(handler.response_serializer),
        )

    def _unary(
        self, name: str, method: str, behaviour: Any
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            with self._observe(name, method, context) as observed:
                try:
                    self._admit()
                    if self._access is not None:
                        await self._access.admit(method, context)
                    _refuse_malformed(request)
                    async with asyncio.timeout(time_left(context, self._default_deadline)):
                        return await behaviour(request, context)
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def _streaming(
        self, name: str, method: str, behaviour: Any
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._observe(name, method, context) as observed:
                try:
                    self._admit()
                    if self._access is not None:
                        await self._access.admit(method, context)
                    _refuse_malformed(request)
                    async with asyncio.timeout(time_left(context, self._default_deadline)):
                        async for response in behaviour(request, context):
                            yield response
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def _observe(self, name: str, method: str, context: Context) -> _ObservedCall:
        if name in self._probes:
            return _Probe(self, name, CallScope(""))
        return _ObservedCall(self, name, CallScope.begin(method, context))

    def seconds_of(self, name: str, code: str) -> Histogram:
        """The latency histogram of a method's calls that ended with a status code."""
        found = self._seconds.get((name, code))
        if found is None:
            found = self._seconds[name, code] = self._metrics.calls.labels(name, code)
        return found

    def _admit(self) -> None:
        if self.in_progress > self._max_calls:
            raise Overloaded(str(self._max_calls))

    async def _abort(self, error: Exception, context: Context, observed: _ObservedCall) -> NoReturn:
        if isinstance(error, TimeoutError):
            error = DeadlineExceeded()
        if isinstance(error, ServiceError):
            code, message = error.code, str(error)
            self._metrics.errors.labels(reason_name(error)).inc()
            details = status_details(error, observed.scope.request_id)
        elif isinstance(error, grpc.aio.AbortError):
            raise error
        else:
            request_id = observed.scope.request_id
            self._metrics.errors.labels("INTERNAL").inc()
            _log.error(
                "internal_error", method=observed.name, request_id=request_id, exc_info=error
            )
            code, message = grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE
            details = internal_details(message, request_id)
        observed.code = code.name
        trailers = (DETAILS_KEY, details), (REQUEST_ID_KEY, observed.scope.request_id)
        await context.abort(code, message, trailers)
        raise AssertionError("abort always raises")


class _ObservedCall:
    """Measures a call: adds it to the calls in progress and records its latency.

    Attributes:
        name: Name of the method.
        scope: Its request id and its trace.
        code: Name of the status code that the call ends with.
    """

    __slots__ = ("_calls", "_start", "code", "name", "scope")

    def __init__(self, calls: CallInterceptor, name: str, scope: CallScope) -> None:
        self._calls = calls
        self.name = name
        self.scope = scope
        self.code = "OK"

    def __enter__(self) -> Self:
        self._calls.in_progress += 1
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        # When the caller of a stream goes away, its generator is closed and not cancelled.
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.code = "CANCELLED"
        self._calls.in_progress -= 1
        seconds = time.perf_counter() - self._start
        self._calls.seconds_of(self.name, self.code).observe(seconds, self.scope.exemplar)
        self.scope.end(self.code)


class _Probe(_ObservedCall):
    """A probe, which is neither counted nor recorded."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        pass


class _Malformed:
    """Takes the place of a request whose bytes cannot be parsed."""


def _checked_deserializer(deserialize: Any) -> Callable[[bytes], Any]:
    """Wraps a deserializer so that malformed bytes end the call with INVALID_ARGUMENT.

    If the deserializer raised, gRPC would end the call with INTERNAL.
    """

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _Malformed()

    return read


def _bytes_or_serialized(serialize: Any) -> Callable[[Any], bytes]:
    """Wraps a serializer so that a servicer may return a message that is already serialised.

    The gateway caches serialised answers and returns them as `bytes`.
    """

    def write(response: Any) -> bytes:
        return response if type(response) is bytes else serialize(response)

    return write


def _refuse_malformed(request: Any) -> None:
    if isinstance(request, _Malformed):
        raise InvalidFields(
            [FieldViolation("", "the request cannot be parsed as a message of its type")]
        )


def time_left(context: Context, default: float) -> float:
    """Seconds until the call's deadline.

    Args:
        context: The call.
        default: Returned if the client set no deadline.
    """
    # None if there is no deadline, although the type stubs exclude it.
    remaining = cast("float | None", context.time_remaining())
    return default if remaining is None else max(0.0, remaining)
