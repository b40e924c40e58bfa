"""The blocking client."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from marquee._answers import (
    BatchAnswer,
    FoundItems,
    PredictedRatings,
    Recommendations,
    SimilarItems,
)
from marquee._channel import BATCH_TIMEOUT, TIMEOUT, Settings
from marquee._deferred import Deferred
from marquee._feedback_calls import Feedback
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
    channel: grpc.Channel
    stub: stubs.RecommenderServiceStub
    feedback_stub: Any


class Client:
    """A client of a Marquee gateway that makes blocking calls. Threads may share it.

        with Client("localhost:50051") as client:
            for movie in client.recommend("42", include_metadata=True):
                print(movie.rank, movie.title)

    The client connects on its first call. After a fork, parent and child can both go on using it:
    the child opens its own connection. gevent is not supported; use threads or `AsyncClient` to
    make calls concurrently.

    A call that fails raises a `MarqueeError`. A call on a closed client raises a `RuntimeError`. An
    argument that has no meaning in a request raises a `TypeError` or `ValueError` before anything
    is sent.

    A call other than `batch_recommend` is retried if the server is unavailable: up to four attempts
    in all, within the call's deadline and within a budget that keeps retries from making an outage
    worse.

    Args:
        target: The gateway's address, `host:port`, or any other gRPC name, such as
            `dns:///host:port`, `unix:/path` or `ipv4:10.0.0.1:50051,10.0.0.2:50051`. Calls are
            balanced over all addresses of the name.
        timeout: The default deadline of a call, in seconds.
        batch_timeout: The default deadline of a batch up to its last answer, in seconds.
        token: A bearer token, or a function that returns one and is called before every call.
        allow_insecure_token: Whether the token may be sent in plaintext to another machine.
        tls: Whether to use TLS. Pass a `TLS` to choose certificates.
        wait_for_ready: Whether a call waits for a connection until its deadline, instead of failing
            if no server can be reached.
        health_check: Whether to send no calls to servers whose health service reports that they are
            not serving.
        channel_options: Additional gRPC channel arguments. They override those of the client.

    Raises:
        OSError: A certificate or key file of `tls` cannot be read.
        ValueError: The target is empty or an HTTP URL, a timeout is not a positive finite number,
            or the token would be sent in plaintext to another machine.
    """

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
        # By process id. After a fork the parent's connection stays in the child's dictionary,
        # unused: gRPC cannot close it there.
        self._connections: dict[int, _Connection] = {}
        self._closed = False

    def recommend(
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
        """Recommends items to a subject, best first.

        Args:
            subject: A user's id or a `Subject`; None for a visitor.
            ratings: Ratings in stars by item id, oldest first: a visitor's, or new ones of a known
                user. Not to be combined with a `Subject`.
            liked_item_ids: Items that the subject likes, without a number of stars, oldest first.
                Not to be combined with a `Subject`.
            page_size: The maximum number of items; at most 1,000.
            page_token: The `next_page_token` of the page before; empty for the first page. Subject
                and options must be the same as for the first page.
            timeout: The deadline of this call in seconds; None for the client's default.
            **options: Filters, diversity, metadata, reasons and more; see `RecommendOptions`.
        """
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.recommend(resolved, page_size, page_token, options)
        return self._recommend(request, timeout)

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
    ) -> Iterator[Recommendations]:
        """Iterates over the pages of a recommendation list, one call per page.

        Pages neither repeat nor skip an item, even if a new release comes into service in between.
        The iterator ends with the list. The arguments are those of `recommend`, and `timeout`
        applies to each page.
        """
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        return self._pages(_requests.recommend(resolved, page_size, page_token, options), timeout)

    def batch_recommend(
        self,
        subjects: Iterable[str | Subject],
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Iterator[BatchAnswer]:
        """Recommends items to many subjects in one call.

        Answers arrive as they become ready, in any order, each with its subject. The error of one
        subject is in its answer and does not end the batch. The call starts when the first answer
        is read from the iterator, and is cancelled when the iterator is closed, for example because
        a loop over it ends early. The server works only a little ahead of a slow reader.

        Args:
            subjects: User ids and `Subject`s. 1 to 10,000.
            page_size: The maximum number of items for each subject; at most 1,000.
            timeout: The deadline in seconds up to the last answer; None for the client's
                `batch_timeout`.
            **options: Options for all subjects; see `RecommendOptions`.
        """
        resolved = _requests.subjects(subjects)
        request = _requests.batch_recommend(resolved, page_size, options)
        return self._batch(request, resolved, timeout)

    def predict_ratings(
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
        """Predicts the ratings that a subject would give to items, in the order of `item_ids`.

        Args:
            subject: A user's id or a `Subject`; None for a visitor.
            item_ids: The items to predict ratings of. 1 to 1,000, each at most once.
            ratings: Ratings in stars by item id, oldest first: a visitor's, or new ones of a known
                user. Not to be combined with a `Subject`.
            liked_item_ids: Items that the subject likes, without a number of stars, oldest first.
                Not to be combined with a `Subject`.
            release_id: Answer from this release instead of the one in service.
            model: Predict with this model alone instead of the ensemble.
            timeout: The deadline of this call in seconds; None for the client's default.
        """
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.predict_ratings(resolved, item_ids, release_id, model)
        return _convert.predicted_ratings(self._call(self._stub().PredictRatings, request, timeout))

    def similar_items(
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
        """Returns the items most similar to an item, most similar first.

        Args:
            item_id: The id of the item to compare with.
            page_size: The maximum number of similar items; at most 1,000.
            release_id: Answer from this release instead of the one in service.
            model: Compare with this model alone instead of the mean over all models.
            include_metadata: Whether to return title, year and genres of each item.
            timeout: The deadline of this call in seconds; None for the client's default.
            **item_filter: Which items may be returned; see `ItemFilter`.
        """
        request = _requests.similar_items(
            item_id, page_size, release_id, model, include_metadata, item_filter
        )
        return _convert.similar_items(self._call(self._stub().SimilarItems, request, timeout))

    def search_items(
        self,
        query: str,
        *,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
    ) -> FoundItems:
        """Finds items whose titles contain the words of a query, best match first.

        Args:
            query: Words in any order; the last may be the beginning of a word. Case and accents are
                ignored.
            page_size: The maximum number of items; at most 1,000.
            page_token: The `next_page_token` of the page before; empty for the first page. The
                query must be the same as for the first page.
            timeout: The deadline of this call in seconds; None for the client's default.
        """
        request = pb.SearchItemsRequest(query=query, page_size=page_size, page_token=page_token)
        return _convert.found_items(self._call(self._stub().SearchItems, request, timeout))

    def search_pages(
        self, query: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Iterator[FoundItems]:
        """Iterates over the pages of search results, one call per page.

        The arguments are those of `search_items`, and `timeout` applies to each page.
        """
        token = ""
        while True:
            page = self.search_items(query, page_size=page_size, page_token=token, timeout=timeout)
            yield page
            if not (token := page.next_page_token):
                return

    def get_item(self, item_id: str, *, timeout: float | None = None) -> Item:
        """Returns the metadata and rating statistics of an item.

        Raises:
            NotFound: The release has no such item.
        """
        request = pb.GetItemRequest(item_id=item_id)
        return _convert.item(self._call(self._stub().GetItem, request, timeout).item)

    def status(self, *, timeout: float | None = None) -> Status:
        """Returns the state of the gateway: its releases, models and backends."""
        return _convert.status(self._call(self._stub().GetStatus, pb.GetStatusRequest(), timeout))

    @property
    def feedback(self) -> Feedback:
        """Records what users do, and lists and deletes what was recorded."""

        def call(method: str, request: Any, timeout: float | None) -> Any:
            return self._call(getattr(self._connection().feedback_stub, method), request, timeout)

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
        return f"Client({self._settings.target!r})"

    def _recommend(self, request: pb.RecommendRequest, timeout: float | None) -> Recommendations:
        return _convert.recommendations(self._call(self._stub().Recommend, request, timeout))

    def _pages(
        self, request: pb.RecommendRequest, timeout: float | None
    ) -> Iterator[Recommendations]:
        while True:
            page = self._recommend(request, timeout)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _batch(
        self, request: pb.BatchRecommendRequest, subjects: Sequence[Subject], timeout: float | None
    ) -> Iterator[BatchAnswer]:
        call = self._stub().BatchRecommend(
            request, **self._settings.call(timeout, self._settings.batch_timeout)
        )
        try:
            for response in call:
                for answer in response.answers:
                    yield _convert.batch_answer(answer, subjects)
        except grpc.RpcError as error:
            raise _rpc_errors.from_rpc_error(error) from error
        finally:
            call.cancel()

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        try:
            return method(request, **self._settings.call(timeout, self._settings.timeout))
        except grpc.RpcError as error:
            raise _rpc_errors.from_rpc_error(error) from error

    def _stub(self) -> stubs.RecommenderServiceStub:
        return self._connection().stub

    def _connection(self) -> _Connection:
        """Returns the connection of this process, and connects first if necessary."""
        if self._closed:
            raise RuntimeError("the client is closed")
        connection = self._connections.get(os.getpid())
        if connection is None:
            new = self._connect()
            # `setdefault` is atomic, so threads agree on one connection without a lock. A lock
            # could be held by another thread during a fork, and would stay locked in the child.
            connection = self._connections.setdefault(os.getpid(), new)
            if connection is not new:
                new.channel.close()
        return connection

    def _connect(self) -> _Connection:
        target, options = self._settings.target, self._settings.options()
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
        )
