"""The interceptor around each call: admission, deadline, error details, metrics.

It reads the request itself, so a call counts from its headers on: a call that is refused is refused
before its message is read, and one whose message does not arrive is ended. Deadlines are enforced
here: a call that passes its deadline is cancelled and ends with DEADLINE_EXCEEDED.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from marquee_services.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidFields,
    NotRead,
    ServiceError,
)
from marquee_services.server.access import AccessControl, caller_name
from marquee_services.server.arrivals import Arrivals
from marquee_services.server.call_scope import REQUEST_ID_KEY, CallScope
from marquee_services.server.calls import CallLimits, CallsInProgress, ObservedCall, Probe
from marquee_services.server.early_admission import (
    EarlyAdmission,
    EarlyAdmissionHandlers,
    no_early_admission,
)
from marquee_services.server.foreign_calls import watched
from marquee_services.server.metrics import Metrics
from marquee_services.server.priority import PRIORITY, Priority, priority_of
from marquee_services.server.request_limits import RequestLimits
from marquee_services.server.status import (
    DETAILS_KEY,
    internal_details,
    reason_name,
    status_details,
)
from marquee_services.server.time_limit import TimeLimit

_log = structlog.get_logger()
_INTERNAL_MESSAGE = (
    "internal error; the server's log has it under the request id in the error details"
)
_NO_LIMITS = RequestLimits()
# Calls that may wait for their requests, for each that may be in progress. To end one costs more
# than to let it wait, and its time is up soon.
_MOST_WAITING = 8

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the methods of some services; of calls of others only their end is noted.

    Health checks and reflection pass through, so they are answered whatever the load. So are the
    methods of `CallLimits.exempt`.

    Attributes:
        calls: The calls in progress.
    """

    def __init__(
        self,
        prefixes: tuple[str, ...],
        limits: CallLimits,
        metrics: Metrics,
        access: AccessControl | None = None,
        probes: frozenset[str] = frozenset(),
        request_limits: Mapping[str, RequestLimits] | None = None,
        early_admission: EarlyAdmission = no_early_admission,
    ):
        """Takes the services to wrap, and the limits.

        Args:
            prefixes: Prefix of each service's methods, `/<full name of the service>/`. The services
                have no method name in common.
            limits: How many calls there may be, and for how long.
            metrics: Receives the number of calls in progress and their latencies.
            access: Decides which calls are accepted; None to accept all.
            probes: Names of methods that only ask for the server's state: they do not count as
                calls, and nothing is recorded about them.
            request_limits: What a request may consist of, by the method's name.
            early_admission: Returns where a call to a method is queued before its request is read,
                or None.
        """
        self._prefixes = prefixes
        self._wait_unread = early_admission
        self._limits = limits
        self._metrics = metrics
        self._access = access
        self._probes = probes
        self._request_limits = request_limits or {}
        self.calls = CallsInProgress(limits, metrics)
        self._arrivals = Arrivals(_MOST_WAITING * limits.calls, self.calls.guard, metrics)
        self._refusals = EarlyAdmissionHandlers(self.calls, metrics)
        # Large requests are checked one after another: each gives way to other calls after a short
        # turn, and many of them at once would take as many turns.
        self._checking = asyncio.Lock()
        # Wrapped handlers by method and priority, so that each is wrapped only once.
        self._handlers: dict[tuple[str, Priority], grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the wrapped handler of a method of the services."""
        self.calls.arrived += 1
        method = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()
        key = method, priority_of(metadata)
        if key in self._handlers:
            known = self._handlers[key]
            name = method.rpartition("/")[2]
            place = self._wait_unread(name) if self._refusals.is_possible else None
            return known if place is None else self._refusals.handler(name, place, known)
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(self._prefixes):
            return watched(handler, self.calls.guard)
        self._handlers[key] = self._wrap(method, handler, key[1])
        return self._handlers[key]

    def _wrap(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], priority: Priority
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handlers read a stream of requests, of which the first is the only one."""
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
        read: Callable[[Context], Awaitable[Any]],
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
                        request = await self._receive(context, limit, read)
                        observed.begin()
                        limit.extend(self._after_receiving(seconds))
                        return await behaviour(request, context)
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    def _streaming(
        self, name: str, method: str, behaviour: Any, read: Callable[[Context], Awaitable[Any]]
    ) -> Callable[[Any, Context], AsyncIterator[Any]]:
        async def call(_requests: Any, context: Context) -> AsyncIterator[Any]:
            loop = asyncio.get_running_loop()
            task = cast("asyncio.Task[Any]", asyncio.current_task())
            with self._observe(name, method, context, context.peer()) as observed:
                try:
                    seconds = self._seconds(context)
                    if self._access is not None:
                        await self._access.admit(method, context)
                        observed.identify(caller_name())
                    await self.calls.wait_for_batch(observed.caller, seconds)
                    seconds = self._seconds(context)
                    with TimeLimit(min(seconds, self._limits.receive_s)) as limit:
                        request = await self._receive(context, limit, read)
                        observed.begin()
                        limit.extend(self._after_receiving(seconds))
                        async for response in behaviour(request, context):
                            stalled = loop.call_later(
                                self._limits.stall_s, self._end_unread, context, task, observed
                            )
                            try:
                                # Waits until the caller has taken what was sent before.
                                yield response
                            finally:
                                stalled.cancel()
                except Exception as error:
                    await self._abort(error, context, observed)

        return call

    async def _receive(
        self, context: Context, limit: TimeLimit, read: Callable[[Context], Awaitable[Any]]
    ) -> Any:
        self._arrivals.add(limit, context)
        try:
            return await read(context)
        finally:
            self._arrivals.remove(limit)

    def _observe(self, name: str, method: str, context: Context, peer: str = "") -> ObservedCall:
        if name in self._probes:
            return Probe(self.calls, name, CallScope(""), context)
        return ObservedCall(self.calls, name, CallScope.begin(method, context), context, peer)

    def _after_receiving(self, seconds: float) -> float:
        """How much later than the time to receive the request the deadline of a call is."""
        return max(0.0, seconds - self._limits.receive_s)

    def _seconds(self, context: Context) -> float:
        """Seconds that a call may take.

        Raises:
            DeadlineExceeded: None are left, so nothing is begun.
        """
        seconds = time_left(context, self._limits.default_deadline_s)
        if seconds <= 0:
            raise DeadlineExceeded
        return min(seconds, self._limits.max_deadline_s)

    def _reader(self, name: str, deserialize: Any) -> Callable[[Context], Awaitable[Any]]:
        limits = self._request_limits.get(name, _NO_LIMITS)

        async def read(context: Context) -> Any:
            data = await context.read()
            if data is grpc.aio.EOF:
                raise InvalidFields([FieldViolation("", "the call has no request message")])
            try:
                if not limits.passes(data):
                    async with self._checking:
                        await limits.check(data)
                return deserialize(data)
            except InvalidFields as error:
                # The error lives until the next collection of garbage, and the request with it if
                # a frame of the traceback holds it.
                raise error.with_traceback(None) from None
            except DecodeError:
                # If the deserializer raised, gRPC would end the call with INTERNAL.
                raise InvalidFields(
                    [FieldViolation("", "the request cannot be parsed as a message of its type")]
                ) from None
            finally:
                del data

        return read

    def _end_unread(
        self, context: Context, task: asyncio.Task[Any], observed: ObservedCall
    ) -> None:
        """Ends a call whose caller does not read, and frees what it holds."""
        error = NotRead(f"{self._limits.stall_s:g}")
        observed.code = error.code.name
        self._metrics.errors.labels(reason_name(error)).inc()

        async def end() -> None:
            details = status_details(error, observed.scope.request_id)
            abort = context.abort(error.code, str(error), ((DETAILS_KEY, details),))
            # The status waits behind the unread answers; the call's own task must not.
            sending = asyncio.ensure_future(abort)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([sending])
            sending.exception()

        ending = asyncio.ensure_future(end())
        self.calls.endings.add(ending)
        ending.add_done_callback(self.calls.endings.discard)

    async def _abort(self, error: Exception, context: Context, observed: ObservedCall) -> NoReturn:
        if isinstance(error, TimeoutError):
            if not observed.begun and observed.seconds >= self._limits.receive_s:
                self.calls.guard.without_request(context)
            reading = "no request arrived before the deadline or in time"
            error = DeadlineExceeded() if observed.begun else DeadlineExceeded(reading)
        request_id = observed.scope.request_id
        if isinstance(error, ServiceError):
            code, message = error.code, str(error)
            self._metrics.errors.labels(reason_name(error)).inc()
            details = status_details(error, request_id)
        elif isinstance(error, grpc.aio.AbortError):
            raise error
        else:
            self._metrics.errors.labels("INTERNAL").inc()
            _log.error(
                "internal_error", method=observed.name, request_id=request_id, exc_info=error
            )
            code, message = grpc.StatusCode.INTERNAL, _INTERNAL_MESSAGE
            details = internal_details(message, request_id)
        observed.code = code.name
        trailers = (DETAILS_KEY, details), (REQUEST_ID_KEY, request_id)
        await context.abort(code, message, trailers)
        raise AssertionError("abort always raises")


def _bytes_or_serialized(serialize: Any) -> Callable[[Any], bytes]:
    """Wraps a serializer so that a servicer may return a message that is already serialised.

    The gateway caches serialised answers and returns them as `bytes`.
    """

    def write(response: Any) -> bytes:
        return response if type(response) is bytes else serialize(response)

    return write


def time_left(context: Context, default: float) -> float:
    """Seconds until the call's deadline.

    Args:
        context: The call.
        default: Returned if the client set no deadline.
    """
    # None if there is no deadline, although the type stubs exclude it.
    remaining = cast("float | None", context.time_remaining())
    return default if remaining is None else max(0.0, remaining)
