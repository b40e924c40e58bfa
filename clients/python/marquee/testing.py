"""A fake gateway for testing programs that use the client.

    from marquee.testing import FakeGateway

    with FakeGateway() as gateway:
        gateway.on("Recommend", marquee.Unavailable("maintenance"))
        with marquee.Client(gateway.address) as client:
            ...  # `client.recommend` raises the error

`FakeGateway` is a real gRPC server on a real socket, so deadlines, retries and TLS work as they do
in production, and clients in any language can call it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from marquee._errors import MarqueeError
from marquee._rpc_errors import DETAILS_KEY, ERROR_DOMAIN
from marquee.v1 import feedback_service_pb2 as feedback_pb
from marquee.v1 import recommender_service_pb2 as pb

Answer: TypeAlias = Message | Iterable[Message] | MarqueeError
"""A response, several responses for a streaming RPC, or an error."""
Behaviour: TypeAlias = Answer | Callable[[Any], Answer]
"""An answer, or a function that returns an answer for a request or raises a `MarqueeError`."""

_THREADS = 16
_METHODS = {
    name: (service.full_name, module, method)
    for module, service in (
        (pb, pb.DESCRIPTOR.services_by_name["RecommenderService"]),
        (feedback_pb, feedback_pb.DESCRIPTOR.services_by_name["FeedbackService"]),
    )
    for name, method in service.methods_by_name.items()
}
_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
# Serialised grpc.health.v1.HealthCheckResponse: field 1 is 1 (SERVING) or 2 (NOT_SERVING).
_HEALTH = {True: b"\x08\x01", False: b"\x08\x02"}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a `FakeGateway` received.

    Attributes:
        method: The name of the RPC, for example `Recommend`.
        request: The request message.
        metadata: The metadata of the call, such as its `authorization`.
        time_remaining: Seconds until the call's deadline when it arrived; for a call without a
            deadline, a value above 10¹⁸.
    """

    method: str
    request: Any
    metadata: dict[str, str]
    time_remaining: float


class FakeGateway:
    """A gateway with configurable answers. It listens from construction until `close`.

    An RPC that has not been configured with `on` returns an empty response.

    Args:
        address: The address to listen on, `host:port`. Port 0, the default, picks a free one.
        credentials: Server credentials for TLS; None for plaintext.

    Attributes:
        address: The address it listens on, `host:port`.
        calls: The calls received so far, in order, including every attempt of a retried call.
        behaviours: The configured answers by RPC; set with `on`.

    Raises:
        RuntimeError: The address is already in use.
    """

    def __init__(
        self, address: str = "127.0.0.1:0", *, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.calls: list[Call] = []
        self.behaviours: dict[str, Behaviour] = {}
        self._health = threading.Condition()
        self._serving = True
        self._closed = False
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="fake-gateway"),
            handlers=[_Handlers(self._answer, self._watch_health)],
            options=[
                # An address in use is an error, not a second listener.
                ("grpc.so_reuseport", 0),
                # Allow the frequent keepalive pings of the clients.
                ("grpc.http2.min_ping_interval_without_data_ms", 100),
            ],
        )
        port = (
            self._server.add_insecure_port(address)
            if credentials is None
            else self._server.add_secure_port(address, credentials)
        )
        self.address = f"{address.rpartition(':')[0]}:{port}"
        self._server.start()

    def on(self, method: str, behaviour: Behaviour) -> None:
        """Configures how an RPC is answered from now on.

        Args:
            method: The name of the RPC, for example `Recommend`.
            behaviour: A response message, a list of responses for `BatchRecommend`, a
                `MarqueeError`, or a function from the request to one of these. The first call
                exhausts an iterator; a list answers every call.

        Raises:
            ValueError: No service has an RPC of that name.
        """
        if method not in _METHODS:
            raise ValueError(f"unknown RPC {method!r}; the RPCs are {', '.join(_METHODS)}")
        self.behaviours[method] = behaviour

    @property
    def serving(self) -> bool:
        """Whether the health service reports that the gateway is serving. Initially True."""
        return self._serving

    @serving.setter
    def serving(self, value: bool) -> None:
        self._serving = value
        self._wake()

    def close(self) -> None:
        """Stops the server immediately. Calls in progress fail."""
        self._closed = True
        self._wake()
        self._server.stop(grace=None).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(
        self, method: str, request: Message, context: grpc.ServicerContext
    ) -> Iterator[Message]:
        """Records a call and yields its responses."""
        metadata = {str(key): str(value) for key, value in cast(Any, context.invocation_metadata())}
        self.calls.append(Call(method, request, metadata, context.time_remaining()))
        behaviour = self.behaviours.get(method, ())
        try:
            answer = behaviour(request) if callable(behaviour) else behaviour
            if isinstance(answer, MarqueeError):
                raise answer
            yield from (answer,) if isinstance(answer, Message) else answer
        except MarqueeError as error:
            context.abort_with_status(_status(error))

    def _watch_health(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Yields the current health and every change, until the watch or the server ends."""
        context.add_callback(self._wake)
        reported = None
        while (serving := self._next_health(reported, context)) is not None:
            yield _HEALTH[serving]
            reported = serving

    def _next_health(self, reported: bool | None, context: grpc.ServicerContext) -> bool | None:
        """Waits until the health differs from the reported one; None if the watch has ended."""
        with self._health:
            self._health.wait_for(
                lambda: self._closed or not context.is_active() or reported != self._serving
            )
            return self._serving if context.is_active() and not self._closed else None

    def _wake(self) -> None:
        with self._health:
            self._health.notify_all()


class _Handlers(grpc.GenericRpcHandler):
    """Routes the methods of both services, and `Watch` of the health service."""

    def __init__(
        self,
        answer: Callable[[str, Message, grpc.ServicerContext], Iterator[Message]],
        watch_health: Callable[[bytes, grpc.ServicerContext], Iterator[bytes]],
    ) -> None:
        self._answer = answer
        self._watch_health = watch_health

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Returns the handler of a method; None if there is no such method."""
        if details.method == _HEALTH_WATCH:
            return grpc.unary_stream_rpc_method_handler(self._watch_health)
        service, _, name = details.method.lstrip("/").partition("/")
        if name not in _METHODS or service != _METHODS[name][0]:
            return None
        _, module, method = _METHODS[name]
        request: type[Message] = getattr(module, method.input_type.name)
        response: type[Message] = getattr(module, method.output_type.name)

        def stream(message: Message, context: grpc.ServicerContext) -> Iterator[Message]:
            return self._answer(name, message, context)

        def unary(message: Message, context: grpc.ServicerContext) -> Message:
            return next(self._answer(name, message, context), response())

        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(
            stream if method.server_streaming else unary,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )


@dataclass(frozen=True, slots=True)
class _Status(grpc.Status):
    """The argument of `abort_with_status`."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def _status(error: MarqueeError) -> _Status:
    """Returns the status that a real gateway would send for an error."""
    code = grpc.StatusCode[error.code]
    details = status_pb2.Status(code=code.value[0], message=error.message)
    if error.reason:
        details.details.add().Pack(
            error_details_pb2.ErrorInfo(
                reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata
            )
        )
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(
                field=violation.field, description=violation.description
            )
        details.details.add().Pack(bad_request)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        details.details.add().Pack(retry)
    return _Status(code, error.message, ((DETAILS_KEY, details.SerializeToString()),))
