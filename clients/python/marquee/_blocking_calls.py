"""Connections and calls of the blocking client, whose public methods are in `_client.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from marquee._answers import BatchAnswer, Recommendations
from marquee._batches import BatchProgress
from marquee._channel import Settings
from marquee._feedback_calls import Feedback
from marquee._forks import FORK_GATE
from marquee._hedging import Hedging
from marquee._lazy import LazyModule
from marquee._options import Metadata, Subject

if TYPE_CHECKING:
    import grpc

    from marquee import _convert, _rpc_errors
    from marquee.v1 import feedback_service_pb2_grpc as feedback_stubs
    from marquee.v1 import recommender_service_pb2 as pb
    from marquee.v1 import recommender_service_pb2_grpc as stubs
else:
    grpc = LazyModule("grpc")
    _convert = LazyModule("marquee._convert")
    _rpc_errors = LazyModule("marquee._rpc_errors")
    feedback_stubs = LazyModule("marquee.v1.feedback_service_pb2_grpc")
    stubs = LazyModule("marquee.v1.recommender_service_pb2_grpc")

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class _Connection:
    channel: grpc.Channel
    stub: stubs.RecommenderServiceStub
    feedback_stub: Any
    certificate_version: int


class BlockingCalls:
    """The connections of a blocking client, one for each process, and its calls."""

    def __init__(self, settings: Settings) -> None:
        """Creates a client that connects on its first call.

        Args:
            settings: The connection settings.
        """
        self._settings = settings
        # By process id. After a fork the parent's connection stays in the child's dictionary and is
        # not used, because gRPC cannot close it there.
        self._connections: dict[int, _Connection] = {}
        self._closed = False
        self._hedging = settings.hedging()
        self._throttle = settings.throttling()

    @property
    def throttled_calls(self) -> int:
        """The number of calls that this client has refused itself; see `Client`'s `throttle`."""
        return 0 if self._throttle is None else self._throttle.refused

    @property
    def feedback(self) -> Feedback:
        """Records, lists and deletes feedback: what users do."""

        def call(
            method: str, request: Any, timeout: float | None, metadata: Metadata | None
        ) -> Any:
            stub = self._connection().feedback_stub
            return self._call(getattr(stub, method), request, timeout, metadata, None)

        return Feedback(call)

    def close(self) -> None:
        """Closes the connection. Calls in progress raise `Cancelled`."""
        self._closed = True
        connection = self._connections.pop(os.getpid(), None)
        if connection:
            connection.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.target!r})"

    def _recommend(
        self, request: pb.RecommendRequest, timeout: float | None, metadata: Metadata | None
    ) -> Recommendations:
        return _convert.recommendations(
            self._read(self._stub().Recommend, request, timeout, metadata)
        )

    def _pages(
        self, request: pb.RecommendRequest, timeout: float | None, metadata: Metadata | None
    ) -> Iterator[Recommendations]:
        while True:
            page = self._recommend(request, timeout, metadata)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _batch(
        self,
        request: pb.BatchRecommendRequest,
        subjects: Sequence[Subject],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Iterator[BatchAnswer]:
        seconds = self._settings.batch_timeout if timeout is None else timeout
        options = self._settings.call(timeout, self._settings.batch_timeout, metadata)
        progress = BatchProgress(request, seconds)
        while True:
            stub = self._stub()
            with FORK_GATE:
                call = stub.BatchRecommend(progress.request, **options)
            try:
                while True:
                    with FORK_GATE:
                        response = next(call, None)
                    if response is None:
                        return
                    for answer in progress.take(response):
                        yield _convert.batch_answer(answer, subjects)
            except grpc.RpcError as error:
                if progress.is_complete:
                    return
                failed = _rpc_errors.from_rpc_error(error, self._settings.target)
                pause = None if self._closed else progress.resume_after(failed)
                if pause is None:
                    raise failed from error
            finally:
                with FORK_GATE:
                    call.cancel()
            time.sleep(pause)
            options["timeout"] = progress.seconds_left

    def _read(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Response:
        """Makes a call that a gateway may refuse because of overload."""
        with nullcontext() if self._throttle is None else self._throttle.call():
            return self._call(method, request, timeout, metadata, self._hedging)

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
        metadata: Metadata | None,
        hedging: Hedging | None,
    ) -> Response:
        options = self._settings.call(timeout, self._settings.timeout, metadata)
        try:
            with FORK_GATE:
                if hedging is None:
                    return method(request, **options)
                response: Response = hedging.call(method, request, options)
                return response
        except grpc.RpcError as error:
            raise _rpc_errors.from_rpc_error(error, self._settings.target) from error

    def _stub(self) -> stubs.RecommenderServiceStub:
        return self._connection().stub

    def _connection(self) -> _Connection:
        """Returns the connection of this process, which is opened if necessary."""
        if self._closed:
            raise RuntimeError("the client is closed")
        connection = self._connections.get(os.getpid())
        if connection and connection.certificate_version != self._settings.certificate_version():
            # Calls in progress keep the old channel alive until they end.
            self._connections.pop(os.getpid(), None)
            connection = None
        if connection is None:
            with FORK_GATE:
                new = self._connect()
            # `setdefault` is atomic, so threads agree on one connection without a lock. A lock that
            # another thread holds during a fork would remain locked in the child.
            connection = self._connections.setdefault(os.getpid(), new)
            if connection is not new:
                new.channel.close()
        return connection

    def _connect(self) -> _Connection:
        target, options = self._settings.target, self._settings.options()
        version = self._settings.certificate_version()
        credentials = self._settings.credentials()
        compression = grpc.Compression.NoCompression
        channel = (
            grpc.insecure_channel(target, options, compression)
            if credentials is None
            else grpc.secure_channel(target, credentials, options, compression)
        )
        return _Connection(
            channel,
            stubs.RecommenderServiceStub(channel),
            feedback_stubs.FeedbackServiceStub(channel),
            version,
        )
