"""The asyncio client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack

from marquee._answers import (
    BatchAnswer,
    FoundItems,
    PredictedRatings,
    Recommendations,
    SimilarItems,
)
from marquee._channel import BATCH_TIMEOUT, TIMEOUT, Settings
from marquee._deferred import Deferred
from marquee._errors import Cancelled
from marquee._feedback_calls import AsyncFeedback
from marquee._options import PAGE_SIZE, TLS, ItemFilter, RecommendOptions, Subject, Token
from marquee._state import Status
from marquee._types import Item

if TYPE_CHECKING:
    import grpc

    from marquee import _convert, _requests, _rpc_errors
    from marquee.v1 import feedback_service_pb2_grpc as feedback_stubs
    from marquee.v1 import recommender_service_pb2 as pb
    from marquee.v1 import recommender_service_pb2_grpc as stubs
else:
    grpc = Deferred("grpc")
    _convert = Deferred("marquee._convert")
    _requests = Deferred("marquee._requests")
    _rpc_errors = Deferred("marquee._rpc_errors")
    feedback_stubs = Deferred("marquee.v1.feedback_service_pb2_grpc")
    pb = Deferred("marquee.v1.recommender_service_pb2")
    stubs = Deferred("marquee.v1.recommender_service_pb2_grpc")

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class _Connection:
    channel: grpc.aio.Channel
    stub: stubs.RecommenderServiceAsyncStub
    feedback_stub: Any


class AsyncClient:
    """A client of a Marquee gateway for asyncio. Tasks may share it.

        async with AsyncClient("localhost:50051") as client:
            for movie in await client.recommend("42", include_metadata=True):
                print(movie.rank, movie.title)

    Arguments, methods and errors are those of `Client`. Each event loop gets its own connection,
    opened on its first call. A process may fork before its first call. gRPC's asyncio API does not
    survive a later fork, so calls in the child then raise a `RuntimeError`.
    """

    # The id of the process that made the first call. Only there do gRPC's asyncio threads run.
    _process_id: ClassVar[int | None] = None

    def __init__(
        self,
        target: str,
        *,
        timeout: float = TIMEOUT,
        batch_timeout: float = BATCH_TIMEOUT,
        token: Token | None = None,
        allow_insecure_token: bool = False,
        tls: bool | TLS = False,
        wait_for_ready: bool = False,
        health_check: bool = True,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self._settings = Settings(
            target=target,
            timeout=timeout,
            batch_timeout=batch_timeout,
            token=token,
            allow_insecure_token=allow_insecure_token,
            tls=tls,
            wait_for_ready=wait_for_ready,
            health_check=health_check,
            channel_options=channel_options,
        )
        self._connections: dict[asyncio.AbstractEventLoop, _Connection] = {}
        self._closed = False

    async def recommend(
        self,
        subject: str | Subject | None = None,
        *,
        ratings: Mapping[str, float] | None = None,
        liked_item_ids: Iterable[str] = (),
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Recommendations:
        """Recommends items to a subject, best first; see `Client.recommend`."""
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.recommend(resolved, page_size, page_token, options)
        return await self._recommend(request, timeout)

    def recommend_pages(
        self,
        subject: str | Subject | None = None,
        *,
        ratings: Mapping[str, float] | None = None,
        liked_item_ids: Iterable[str] = (),
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> AsyncIterator[Recommendations]:
        """Iterates over the pages of a recommendation list; see `Client.recommend_pages`."""
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        return self._pages(_requests.recommend(resolved, page_size, page_token, options), timeout)

    def batch_recommend(
        self,
        subjects: Iterable[str | Subject],
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> AsyncIterator[BatchAnswer]:
        """Recommends items to many subjects in one call; see `Client.batch_recommend`.

        If a loop over the answers ends early, the call is cancelled when the iterator is closed:
        immediately inside `contextlib.aclosing`, otherwise when the event loop finalises it.
        """
        resolved = _requests.subjects(subjects)
        request = _requests.batch_recommend(resolved, page_size, options)
        return self._batch(request, resolved, timeout)

    async def predict_ratings(
        self,
        subject: str | Subject | None,
        item_ids: Iterable[str],
        *,
        ratings: Mapping[str, float] | None = None,
        liked_item_ids: Iterable[str] = (),
        release_id: str = "",
        model: str = "",
        timeout: float | None = None,
    ) -> PredictedRatings:
        """Predicts the ratings of items; see `Client.predict_ratings`."""
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.predict_ratings(resolved, item_ids, release_id, model)
        response = await self._call(self._stub().PredictRatings, request, timeout)
        return _convert.predicted_ratings(response)

    async def similar_items(
        self,
        item_id: str,
        *,
        page_size: int = PAGE_SIZE,
        release_id: str = "",
        model: str = "",
        include_metadata: bool = False,
        timeout: float | None = None,
        **item_filter: Unpack[ItemFilter],
    ) -> SimilarItems:
        """Returns the items most similar to an item; see `Client.similar_items`."""
        request = _requests.similar_items(
            item_id, page_size, release_id, model, include_metadata, item_filter
        )
        response = await self._call(self._stub().SimilarItems, request, timeout)
        return _convert.similar_items(response)

    async def search_items(
        self,
        query: str,
        *,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
    ) -> FoundItems:
        """Finds items whose titles contain the words of a query; see `Client.search_items`."""
        request = pb.SearchItemsRequest(query=query, page_size=page_size, page_token=page_token)
        response = await self._call(self._stub().SearchItems, request, timeout)
        return _convert.found_items(response)

    async def search_pages(
        self, query: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> AsyncIterator[FoundItems]:
        """Iterates over the pages of search results; see `Client.search_pages`."""
        token = ""
        while True:
            page = await self.search_items(
                query, page_size=page_size, page_token=token, timeout=timeout
            )
            yield page
            if not (token := page.next_page_token):
                return

    async def get_item(self, item_id: str, *, timeout: float | None = None) -> Item:
        """Returns the metadata and rating statistics of an item; see `Client.get_item`."""
        request = pb.GetItemRequest(item_id=item_id)
        response = await self._call(self._stub().GetItem, request, timeout)
        return _convert.item(response.item)

    async def status(self, *, timeout: float | None = None) -> Status:
        """Returns the state of the gateway: its releases, models and backends."""
        response = await self._call(self._stub().GetStatus, pb.GetStatusRequest(), timeout)
        return _convert.status(response)

    @property
    def feedback(self) -> AsyncFeedback:
        """Records what users do, and lists and deletes what was recorded."""

        async def call(method: str, request: Any, timeout: float | None) -> Any:
            stub = self._connection().feedback_stub
            return await self._call(getattr(stub, method), request, timeout)

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
        return f"AsyncClient({self._settings.target!r})"

    async def _recommend(
        self, request: pb.RecommendRequest, timeout: float | None
    ) -> Recommendations:
        response = await self._call(self._stub().Recommend, request, timeout)
        return _convert.recommendations(response)

    async def _pages(
        self, request: pb.RecommendRequest, timeout: float | None
    ) -> AsyncIterator[Recommendations]:
        while True:
            page = await self._recommend(request, timeout)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _batch(
        self, request: pb.BatchRecommendRequest, subjects: Sequence[Subject], timeout: float | None
    ) -> AsyncIterator[BatchAnswer]:
        call = self._stub().BatchRecommend(
            request, **self._settings.call(timeout, self._settings.batch_timeout)
        )
        try:
            async for response in call:
                for answer in response.answers:
                    yield _convert.batch_answer(answer, subjects)
        except grpc.RpcError as error:
            raise _rpc_errors.from_rpc_error(error) from error
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        finally:
            call.cancel()

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        try:
            return await method(request, **self._settings.call(timeout, self._settings.timeout))
        except grpc.RpcError as error:
            raise _rpc_errors.from_rpc_error(error) from error
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
        """Returns the connection of this event loop, and connects first if necessary."""
        if self._closed:
            raise RuntimeError("the client is closed")
        if AsyncClient._process_id is None:
            AsyncClient._process_id = os.getpid()
        elif AsyncClient._process_id != os.getpid():
            raise RuntimeError("an AsyncClient cannot be used in a process forked after its use")
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            for closed in [other for other in self._connections if other.is_closed()]:
                del self._connections[closed]
            connection = self._connections[loop] = self._connect()
        return connection

    def _connect(self) -> _Connection:
        target, options = self._settings.target, self._settings.options()
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
        )
