"""The client for threads."""

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
from marquee._options import PAGE_SIZE, TLS, ItemFilter, RecommendOptions, Subject, Token
from marquee._state import Status
from marquee._types import Item

if TYPE_CHECKING:
    import grpc

    from marquee import _convert, _requests, _rpc_errors
    from marquee.v1 import recommender_service_pb2 as pb
    from marquee.v1 import recommender_service_pb2_grpc as stubs
else:
    grpc = Deferred("grpc")
    _convert = Deferred("marquee._convert")
    _requests = Deferred("marquee._requests")
    _rpc_errors = Deferred("marquee._rpc_errors")
    pb = Deferred("marquee.v1.recommender_service_pb2")
    stubs = Deferred("marquee.v1.recommender_service_pb2_grpc")

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class _Connection:
    channel: grpc.Channel
    stub: stubs.RecommenderServiceStub


class Client:
    """A client of a Marquee gateway. Threads may share it.

        with Client("localhost:50051") as client:
            for movie in client.recommend("42", include_metadata=True):
                print(movie.rank, movie.title)

    Connects at the first call. A process that forks may go on using it in parent and child: the
    child connects anew. gevent is not supported; for many calls at once take threads, or
    `AsyncClient`.

    Every call raises a `MarqueeError` when it fails, a `RuntimeError` once the client is closed,
    and a `TypeError` or `ValueError` for an argument that no message could carry. Each but
    `batch_recommend` is tried again, up to four times in all and within a budget, as long as the
    server is unavailable and the deadline allows.

    Args:
        target: `host:port`; calls go round all addresses of the host. Any gRPC name will do, such
            as `dns:///host:port`, `unix:/path` or `ipv4:10.0.0.1:50051,10.0.0.2:50051`.
        timeout: Seconds that a call may take. Every call has a deadline.
        batch_timeout: Seconds that a batch may take, to its last answer.
        token: A bearer token, or a function that is asked for one before each call.
        allow_insecure_token: Whether the token may travel in plaintext to other machines.
        tls: Whether to secure the connection; certificates by `TLS`.
        wait_for_ready: Whether calls wait for a connection up to their deadline, rather than fail
            when no server can be reached.
        health_check: Whether to pass over servers that say they are not serving.
        channel_options: More gRPC channel arguments; these win over the client's own.

    Raises:
        OSError: A file of `tls` cannot be read.
        ValueError: A setting makes no sense, or would send the token where others can read it.
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
        # By process id. A parent's connection stays in its child's memory, untouched: gRPC cannot
        # tear it down there.
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
            subject: A user's id, or a `Subject`; None for a visitor.
            ratings: Ratings in stars by item id, the latest last: a visitor's, or fresh ones of the
                user.
            liked_item_ids: Items that the subject likes, without a rating, the latest last.
            page_size: How many items; at most 1,000.
            page_token: `next_page_token` of the page before; all else as it was then.
            timeout: Seconds that the call may take; None for the client's.
            **options: See `RecommendOptions`: filters, diversity, reasons and more.
        """
        who = _requests.subject(subject, ratings, liked_item_ids)
        return self._recommend(_requests.recommend(who, page_size, page_token, options), timeout)

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
        """Walks the pages of a recommendation until the catalogue ends or the caller does.

        Pages neither repeat nor skip an item, also while a new release comes into service. Each is
        a call of its own. Arguments are those of `recommend`.
        """
        who = _requests.subject(subject, ratings, liked_item_ids)
        return self._pages(_requests.recommend(who, page_size, page_token, options), timeout)

    def batch_recommend(
        self,
        subjects: Iterable[str | Subject],
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Iterator[BatchAnswer]:
        """Recommends to many subjects in one call.

        Answers come as they are ready, in any order, and no faster than the caller takes them. One
        subject's failure is in its answer and does not end the batch. The call begins with the
        first answer asked for; leaving the loop ends it.

        Args:
            subjects: User ids and `Subject`s. 1 to 10,000.
            page_size: How many items each gets; at most 1,000.
            timeout: Seconds to the last answer; None for the client's `batch_timeout`.
            **options: See `RecommendOptions`; the same for all.
        """
        who = _requests.subjects(subjects)
        return self._batch(_requests.batch_recommend(who, page_size, options), who, timeout)

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
        """Predicts a subject's ratings of given items, in the order given.

        Args:
            subject: A user's id, or a `Subject`; None for a visitor.
            item_ids: The items, each once. 1 to 1,000.
            ratings: Ratings in stars by item id, the latest last: a visitor's, or fresh ones of the
                user.
            liked_item_ids: Items that the subject likes, without a rating, the latest last.
            release_id: Answer with this release instead of the one in service.
            model: Answer with this model alone instead of the ensemble.
            timeout: Seconds that the call may take; None for the client's.
        """
        who = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.predict_ratings(who, item_ids, release_id, model)
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
        """Answers the items most similar to an item, most similar first.

        Args:
            item_id: The item.
            page_size: How many; at most 1,000.
            release_id: Answer with this release instead of the one in service.
            model: Answer with this model alone instead of the blend.
            include_metadata: Whether to tell titles, years and genres.
            timeout: Seconds that the call may take; None for the client's.
            **item_filter: See `ItemFilter`.
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
        """Finds items by words of their titles, best match first.

        Args:
            query: Words of the title in any order; the last may be the beginning of a word.
            page_size: How many items; at most 1,000.
            page_token: `next_page_token` of the page before; all else as it was then.
            timeout: Seconds that the call may take; None for the client's.
        """
        request = pb.SearchItemsRequest(query=query, page_size=page_size, page_token=page_token)
        return _convert.found_items(self._call(self._stub().SearchItems, request, timeout))

    def search_pages(
        self, query: str, *, page_size: int = PAGE_SIZE, timeout: float | None = None
    ) -> Iterator[FoundItems]:
        """Walks the pages of a search until nothing more is found or the caller ends.

        Arguments are those of `search_items`; each page is a call of its own.
        """
        token = ""
        while True:
            page = self.search_items(query, page_size=page_size, page_token=token, timeout=timeout)
            yield page
            if not (token := page.next_page_token):
                return

    def get_item(self, item_id: str, *, timeout: float | None = None) -> Item:
        """Answers what is known about an item."""
        request = pb.GetItemRequest(item_id=item_id)
        return _convert.item(self._call(self._stub().GetItem, request, timeout).item)

    def status(self, *, timeout: float | None = None) -> Status:
        """Answers the state of the gateway: its releases, models and backends."""
        return _convert.status(self._call(self._stub().GetStatus, pb.GetStatusRequest(), timeout))

    def close(self) -> None:
        """Closes the connection; calls in progress end as `Cancelled`."""
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
        self, request: pb.BatchRecommendRequest, who: Sequence[Subject], timeout: float | None
    ) -> Iterator[BatchAnswer]:
        call = self._stub().BatchRecommend(
            request, **self._settings.call(timeout, self._settings.batch_timeout)
        )
        try:
            for response in call:
                for answer in response.answers:
                    yield _convert.batch_answer(answer, who)
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
        """The stub on this process's connection, which is made here when there is none yet."""
        if self._closed:
            raise RuntimeError("the client is closed")
        connection = self._connections.get(os.getpid())
        if connection is None:
            fresh = self._connect()
            # Without a lock, which a fork could leave held: of two threads, one wins.
            connection = self._connections.setdefault(os.getpid(), fresh)
            if connection is not fresh:
                fresh.channel.close()
        return connection.stub

    def _connect(self) -> _Connection:
        target, options = self._settings.target, self._settings.options()
        credentials = self._settings.credentials()
        compression = grpc.Compression.NoCompression
        channel = (
            grpc.insecure_channel(target, options, compression)
            if credentials is None
            else grpc.secure_channel(target, credentials, options, compression)
        )
        return _Connection(channel, stubs.RecommenderServiceStub(channel))
