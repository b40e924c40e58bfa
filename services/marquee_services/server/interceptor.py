"""The interceptor of every call: admission, deadline, error details and metrics.

The interceptor reads the request message itself, so a call counts as soon as its headers arrive. A
call can be refused before its message is read, and a call whose message does not arrive is ended.
A call that passes its deadline is cancelled here and ends with DEADLINE_EXCEEDED.

It is a generic handler around the methods. For gRPC's own kind of interceptor, gRPC would create
further coroutines with every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from marquee_services.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidFields,
    ResponsesNotRead,
    ServiceError,
)
from marquee_services.server import call_operations
from marquee_services.server.admission.calls import CallLimits, CallsInProgress, ObservedCall, Probe
from marquee_services.server.admission.early_admission import (
    EarlyAdmission,
    EarlyAdmissionHandlers,
    no_early_admission,
)
from marquee_services.server.admission.pending_requests import PendingRequests
from marquee_services.server.admission.priority import PRIORITY, Priority, priority_of
from marquee_services.server.admission.refusals import Refusals
from marquee_services.server.admission.request_limits import RequestChecks, RequestLimits
from marquee_services.server.connections.guarded_handlers import guarded
from marquee_services.server.draining import Drain
from marquee_services.server.identity.access import AccessControl, caller_name
from marquee_services.server.method_table import MethodTable
from marquee_services.server.status import (
    error_trailers,
    internal_details,
    reason_name,
    trailers_of,
)
from marquee_services.server.telemetry.call_scope import CallScope
from marquee_services.server.telemetry.metrics import Metrics
from marquee_services.server.time_limit import TimeLimit

_log = structlog.get_logger()
_INTERNAL_MESSAGE = (
    "internal error; find it in the server's log by the request id in the error details"
)
_NO_LIMITS = RequestLimits()
# The limit on calls whose request has not arrived, as a multiple of the limit on calls in progress.
# Ending such a call costs more than letting it wait, and it times out soon.
_PENDING_PER_CALL = 8

Context = grpc.aio.ServicerContext[Any, Any]
_Read: TypeAlias = Callable[[Context, TimeLimit, ObservedCall], Awaitable[Any]]
Shortcut: TypeAlias = Callable[[bytes], bytes | None]
"""Returns the serialised response to a serialised request, or None to have the method answer it."""


class CallInterceptor(grpc.GenericRpcHandler):
    """Wraps the methods of the given services.

    Health checks and reflection are not wrapped, so they are answered under any load; only how
    their calls end is recorded. The methods of `CallLimits.exempt` are answered under any load too.

    Attributes:
        calls: The calls in progress.
        drain: Refuses calls when the server shuts down.
    """

    def __init__(
        self,
        methods: MethodTable,
        prefixes: tuple[str, ...],
        limits: CallLimits,
        metrics: Metrics,
        access: AccessControl | None = None,
        probes: frozenset[str] = frozenset(),
        request_limits: Mapping[str, RequestLimits] | None = None,
        early_admission: EarlyAdmission = no_early_admission,
        shortcuts: Mapping[str, Shortcut] | None = None,
    ):
        """Creates an interceptor.

        Args:
            methods: The methods of the server, including those that are not wrapped.
            prefixes: Prefix of each service's methods, `/<full name of the service>/`. The services
                have no method name in common.
            limits: The limits on the number of calls and their duration.
            metrics: Receives the number of calls in progress and their latencies.
            access: Decides which calls are accepted; None to accept all.
            probes: Names of methods that only query the server's state: they do not count as
                calls, and nothing is recorded about them.
            request_limits: The limits on the elements of a request, by the method's name.
            early_admission: Returns where a call to a method is queued before its request is read,
                or None.
            shortcuts: Answer repeated requests without parsing them, by the method's name.
        """
        self._shortcuts = shortcuts or {}
        self._methods = methods
        self._prefixes = prefixes
        self._early_admission = early_admission
        self._limits = limits
        self._metrics = metrics
        self._access = access
        self._probes = probes
        self._request_limits = request_limits or {}
        self.calls = CallsInProgress(limits, metrics)
        self._pending_requests = PendingRequests(
            _PENDING_PER_CALL * limits.calls, self.calls.guard, metrics
        )
        refusals = Refusals(self.calls, metrics)
        self.drain = Drain(self.calls, refusals)
        self._early_handlers = EarlyAdmissionHandlers(self.calls, refusals)
        self._request_checks = RequestChecks()
        # Wrapped handlers by method and priority, so that each is wrapped only once.
        self._handlers: dict[tuple[str, Priority], grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the wrapped handler of a method of the services."""
        self.calls.arrived += 1
        method = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()
        if self.drain.is_refusing and method.startswith(self._prefixes):
            return self.drain.handler(method.rpartition("/")[2])
        key = method, priority_of(metadata)
        known = self._handlers.get(key)
        if known is not None:
            if not self._early_handlers.is_possible:
                return known
            name = method.rpartition("/")[2]
            slot = self._early_admission(name)
            return known if slot is None else self._early_handlers.handler(name, slot, known)
        handler = self._methods.service(handler_call_details)
        if handler is None or not method.startswith(self._prefixes):
            return guarded(handler, self.calls.guard)
        self._handlers[key] = self._wrap(method, handler, key[1])
        return self._handlers[key]

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], priority: Priority
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps a handler; the new one is of a streaming type, so that it can read the request."""
        name = method.rsplit("/", 1)[-1]
        read = self._reader(name, handler.request_deserializer)
        write = _bytes_or_serialized(handler.response_serializer)
        if handler.response_streaming:
            streaming = self._streaming(name, method, handler.unary_stream, read)
            return grpc.stream_stream_rpc_method_handler(streaming, None, write)
        unary = self._unary(name, method, handler.unary_unary, read, priority)
        return grpc.stream_unary_rpc_method_handler(unary, None, write)

    def _unary(
        self,
        name: str,
        method: str,
        behaviour: Any,
        read: _Read,
        priority: Priority,
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(_requests: Any, context: Context) -> Any:
            if priority is not Priority.INTERACTIVE:
                PRIORITY.set(priority)
            with self._observe(name, method, context) as observed:
                try:
                    seconds = self._seconds(context)
                    observed.check()
                    if self._access is not None:
                        await self._access.admit(method, context)
                    with TimeLimit(min(seconds, self._limits.receive_s)) as limit:
                        request = await read(context, limit, observed)
                        if type(request) is bytes:
                            return request  # A shortcut has answered the call.
                        if not observed.begun:
                            observed.begin()
                        limit.extend(self._after_receiving(seconds))
                        return await behaviour(request, context)
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def _streaming(
        self, name: str, method: str, behaviour: Any, read: _Read
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def call(_requests: Any, context: Context) -> AsyncIterator[Any]:
            loop = asyncio.get_running_loop()
            with self._observe(name, method, context, context.peer()) as observed:
                try:
                    seconds = self._seconds(context)
                    if self._access is not None:
                        await self._access.admit(method, context)
                        observed.identify(caller_name())
                    await self.calls.wait_for_batch(observed.caller, seconds)
                    seconds = self._seconds(context)
                    with TimeLimit(min(seconds, self._limits.receive_s)) as limit:
                        request = await read(context, limit, observed)
                        observed.begin()
                        limit.extend(self._after_receiving(seconds))
                        async for response in behaviour(request, context):
                            stalled = loop.call_later(
                                self._limits.stall_s, self._end_stalled, observed
                            )
                            try:
                                # Returns once the caller has read the response.
                                yield response
                            finally:
                                stalled.cancel()
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def _observe(self, name: str, method: str, context: Context, peer: str = "") -> ObservedCall:
        if name in self._probes:
            return Probe(self.calls, name, CallScope(""), context)
        return ObservedCall(self.calls, name, CallScope.begin(method, context), context, peer)

    def _after_receiving(self, seconds: float) -> float:
        """Returns the call's remaining seconds after the time allowed for receiving the request."""
        return max(0.0, seconds - self._limits.receive_s)

    def _seconds(self, context: Context) -> float:
        """Returns the seconds that a call may take.

        Raises:
            DeadlineExceeded: The deadline has already passed.
        """
        seconds = time_left(context, self._limits.default_deadline_s)
        if seconds <= 0:
            raise DeadlineExceeded
        return min(seconds, self._limits.max_deadline_s)

    def _reader(self, name: str, deserialize: Any) -> _Read:
        """Returns a function that reads a request, or a shortcut's response to it (bytes)."""
        limits = self._request_limits.get(name, _NO_LIMITS)
        shortcut = self._shortcuts.get(name)
        pending = self._pending_requests

        async def read(context: Context, limit: TimeLimit, observed: ObservedCall) -> Any:
            pending.add(limit, context)
            try:
                data = await call_operations.read(context)
            finally:
                pending.remove(limit)
            if data is grpc.aio.EOF:
                raise InvalidFields([FieldViolation("", "the call has no request message")])
            try:
                if shortcut is not None:
                    observed.begin()
                    answer = shortcut(data)
                    if answer is not None:
                        return answer
                if not limits.passes(data):
                    await self._request_checks.check(limits, data)
                return deserialize(data)
            except InvalidFields as error:
                # The error lives until the next garbage collection, and so would the request if a
                # frame of the traceback referred to it.
                raise error.with_traceback(None) from None
            except DecodeError:
                # gRPC would turn this error into INTERNAL.
                raise InvalidFields(
                    [FieldViolation("", "the request cannot be parsed as a message of its type")]
                ) from None
            finally:
                del data

        return read

    def _end_stalled(self, observed: ObservedCall) -> None:
        """Ends a call whose caller does not read the responses."""
        self.calls.end(observed, ResponsesNotRead(f"{self._limits.stall_s:g}"))

    async def _abort(self, error: Exception, context: Context, observed: ObservedCall) -> None:
        if isinstance(error, TimeoutError):
            if not observed.begun and observed.seconds >= self._limits.receive_s:
                self.calls.guard.record_missing_request(context)
            no_request = "the request did not arrive in time"
            error = DeadlineExceeded() if observed.begun else DeadlineExceeded(no_request)
        request_id = observed.scope.request_id
        if isinstance(error, ServiceError):
            code, message = error.code, str(error)
            self._metrics.errors.labels(reason_name(error)).inc()
            trailers = error_trailers(error, request_id)
        elif isinstance(error, grpc.aio.AbortError):
            raise error
        else:
            self._metrics.errors.labels("INTERNAL").inc()
            _log.error(
                "internal_error", method=observed.name, request_id=request_id, exc_info=error
            )
            code, message = grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE
            trailers = trailers_of(internal_details(message, request_id), request_id)
        observed.code = code.name
        await call_operations.abort(context, code, message, trailers)


def _bytes_or_serialized(serialize: Any) -> Callable[[Any], bytes]:
    """Wraps a serializer so that a servicer may return a serialised message as `bytes`.

    The gateway caches serialised answers.
    """

    def write(response: Any) -> bytes:
        return response if type(response) is bytes else serialize(response)

    return write


def time_left(context: Context, default: float) -> float:
    """Returns the seconds until the call's deadline.

    Args:
        context: The call.
        default: Returned if the client set no deadline.
    """
    # None without a deadline, although the type stubs do not say so.
    remaining = cast("float | None", context.time_remaining())
    return default if remaining is None else max(0.0, remaining)
