"""Connections and calls of the asyncio client, whose public methods are in `_async_client.py`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from marquee._answers import BatchAnswer, Recommendations
from marquee._batches import BatchProgress
from marquee._channel import Settings
from marquee._errors import Cancelled
from marquee._feedback_calls import AsyncFeedback
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
    channel: grpc.aio.Channel
    stub: stubs.RecommenderServiceAsyncStub
    feedback_stub: Any
    certificate_version: int


class AsyncCalls:
    """The connections of an asyncio client, one for each event loop, and its calls."""

    # The id of the process that made the first call, the only one with gRPC's asyncio threads.
    _process_id: ClassVar[int | None] = None

    def __init__(self, settings: Settings) -> None:
        """Creates a client that connects on its first call.

        Args:
            settings: The connection settings.
        """
        self._settings = settings
        self._connections: dict[asyncio.AbstractEventLoop, _Connection] = {}
        self._closed = False
        self._hedging = settings.hedging()
        self._throttle = settings.throttling()

    @property
    def throttled_calls(self) -> int:
        """The number of calls that this client has refused itself; see `Client`'s `throttle`."""
        return 0 if self._throttle is None else self._throttle.refused

    @property
    def feedback(self) -> AsyncFeedback:
        """Records, lists and deletes feedback: what users do."""

        async def call(
            method: str, request: Any, timeout: float | None, metadata: Metadata | None
        ) -> Any:
            stub = self._connection().feedback_stub
            return await self._call(getattr(stub, method), request, timeout, metadata, None)

        return AsyncFeedback(call)

    async def close(self) -> None:
        """Closes the connection of this event loop. Its calls in progress raise `Cancelled`."""
        self._closed = True
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection:
            await connection.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.target!r})"

    async def _recommend(
        self, request: pb.RecommendRequest, timeout: float | None, metadata: Metadata | None
    ) -> Recommendations:
        response = await self._read(self._stub().Recommend, request, timeout, metadata)
        return _convert.recommendations(response)

    async def _pages(
        self, request: pb.RecommendRequest, timeout: float | None, metadata: Metadata | None
    ) -> AsyncIterator[Recommendations]:
        while True:
            page = await self._recommend(request, timeout, metadata)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _batch(
        self,
        request: pb.BatchRecommendRequest,
        subjects: Sequence[Subject],
        timeout: float | None,
        metadata: Metadata | None,
    ) -> AsyncIterator[BatchAnswer]:
        seconds = self._settings.batch_timeout if timeout is None else timeout
        options = self._settings.call(timeout, self._settings.batch_timeout, metadata)
        progress = BatchProgress(request, seconds)
        while True:
            call = self._stub().BatchRecommend(progress.request, **options)
            try:
                async for response in call:
                    for answer in progress.take(response):
                        yield _convert.batch_answer(answer, subjects)
                return
            except grpc.RpcError as error:
                if progress.is_complete:
                    return
                failed = _rpc_errors.from_rpc_error(error, self._settings.target)
                pause = None if self._closed else progress.resume_after(failed)
                if pause is None:
                    raise failed from error
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise
            finally:
                call.cancel()
            await asyncio.sleep(pause)
            options["timeout"] = progress.seconds_left

    async def _read(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
        metadata: Metadata | None,
    ) -> Response:
        """Makes a call that a gateway may refuse because of overload."""
        with nullcontext() if self._throttle is None else self._throttle.call():
            return await self._call(method, request, timeout, metadata, self._hedging)

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
        metadata: Metadata | None,
        hedging: Hedging | None,
    ) -> Response:
        options = self._settings.call(timeout, self._settings.timeout, metadata)
        try:
            if hedging is None:
                return await method(request, **options)
            response: Response = await hedging.call_async(method, request, options)
            return response
        except grpc.RpcError as error:
            raise _rpc_errors.from_rpc_error(error, self._settings.target) from error
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise

    def _raise_if_closed(self) -> None:
        """Raises `Cancelled` if `close`, not the cancellation of this task, ended the call.

        gRPC raises `asyncio.CancelledError` in both cases.
        """
        task = asyncio.current_task()
        if self._closed and task is not None and not task.cancelling():
            raise Cancelled("the client was closed") from None

    def _stub(self) -> stubs.RecommenderServiceAsyncStub:
        return self._connection().stub

    def _connection(self) -> _Connection:
        """Returns the connection of this event loop, which is opened if necessary."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if AsyncCalls._process_id is None:
            AsyncCalls._process_id = os.getpid()
        elif AsyncCalls._process_id != os.getpid():
            raise RuntimeError("an AsyncClient cannot be used in a process forked after a call")
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection and connection.certificate_version != self._settings.certificate_version():
            # Calls in progress keep the old channel alive until they end.
            connection = None
        if connection is None:
            for closed in [other for other in self._connections if other.is_closed()]:
                del self._connections[closed]
            connection = self._connections[loop] = self._connect()
        return connection

    def _connect(self) -> _Connection:
        target, options = self._settings.target, self._settings.options()
        version = self._settings.certificate_version()
        credentials = self._settings.credentials()
        compression = grpc.Compression.NoCompression
        channel = (
            grpc.aio.insecure_channel(target, options, compression)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options, compression)
        )
        return _Connection(
            channel,
            stubs.RecommenderServiceStub(channel),
            feedback_stubs.FeedbackServiceStub(channel),
            version,
        )
