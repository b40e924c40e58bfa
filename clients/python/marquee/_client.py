"""The blocking client. Each method builds a request, makes the call and converts the response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marquee._answers import (
    BatchAnswer,
    PredictedRatings,
    Recommendations,
    SimilarItems,
)
from marquee._catalogue_calls import CatalogueCalls
from marquee._channel import BATCH_TIMEOUT, TIMEOUT, Settings
from marquee._hedging import HEDGE_AFTER_S
from marquee._lazy import LazyModule
from marquee._options import PAGE_SIZE, TLS, Metadata, Subject, Token
from marquee._state import Status

if TYPE_CHECKING:
    from marquee import _convert, _requests
    from marquee.v1 import recommender_service_pb2 as pb
else:
    _convert = LazyModule("marquee._convert")
    _requests = LazyModule("marquee._requests")
    pb = LazyModule("marquee.v1.recommender_service_pb2")


class Client(CatalogueCalls):
    """A client of a Marquee gateway that makes blocking calls. Threads may share it.

        with Client("localhost:50051") as client:
            for movie in client.recommend("42", include_metadata=True):
                print(movie.rank, movie.title)

    The client connects on its first call. After a fork, both the parent and the child can continue
    to use it; the child opens its own connection. gevent is not supported. To make calls
    concurrently, use threads or `AsyncClient`.

    A call that fails raises a `MarqueeError`, and a call on a closed client raises a
    `RuntimeError`. Arguments that cannot be sent in a request raise a `TypeError` or `ValueError`
    before anything is sent. If the server is unavailable, calls other than `batch_recommend` are
    retried: up to four attempts in total, within the deadline and a budget that prevents retries
    from making an outage worse. If a gateway does not respond to a read, the read is also sent to
    other gateways; see `hedge_after`.

    Args:
        target: The gateway's address, `host:port`, or any other gRPC name, such as
            `dns:///host:port`, `unix:/path` or `ipv4:10.0.0.1:50051,10.0.0.2:50051`. Calls are
            balanced over all addresses of the name.
        timeout: The default deadline of a call, in seconds.
        batch_timeout: The default deadline of a batch up to its last answer, in seconds.
        token: A bearer token, or a function that returns one, which is called before every call.
        allow_insecure_token: Whether the token may be sent in plaintext to another machine.
        tls: Whether to use TLS. Pass a `TLS` to choose certificates.
        wait_for_ready: Whether a call waits for a connection until its deadline, instead of failing
            immediately if no server can be reached.
        health_check: Whether to avoid servers whose health service reports that they are not
            serving.
        hedge_after: Seconds after which a read without a response is also sent to other gateways;
            0 to disable this.
        throttle: Whether to refuse reads without sending them while gateways refuse most of them,
            so that an overload ends sooner.
        channel_options: Additional gRPC channel arguments, which override those of the client.

    Raises:
        OSError: A certificate or key file of `tls` cannot be read.
        TypeError: The target is not a string, or a timeout is not a number.
        ValueError: The target is an HTTP URL or lacks a port, a timeout is not a positive number of
            at most 1e9 seconds, or the token would be sent in plaintext to another machine.
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
        hedge_after: float = HEDGE_AFTER_S,
        throttle: bool = True,
        channel_options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        super().__init__(
            Settings(
                target=target,
                timeout=timeout,
                batch_timeout=batch_timeout,
                token=token,
                allow_insecure_token=allow_insecure_token,
                tls=tls,
                wait_for_ready=wait_for_ready,
                health_check=health_check,
                hedge_after=hedge_after,
                throttle=throttle,
                channel_options=channel_options,
            )
        )

    def recommend(
        self,
        subject: str | Subject | None = None,
        *,
        ratings: Mapping[str, float] | None = None,
        liked_item_ids: Iterable[str] = (),
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        genres_any: Iterable[str] = (),
        genres_all: Iterable[str] = (),
        genres_none: Iterable[str] = (),
        year_min: int | None = None,
        year_max: int | None = None,
        allowed_item_ids: Iterable[str] | None = None,
        excluded_item_ids: Iterable[str] = (),
        include_seen: bool = False,
        min_predicted_stars: float | None = None,
        diversity: float = 0.0,
        release_id: str = "",
        model: str = "",
        include_metadata: bool = False,
        include_reasons: bool = False,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Recommendations:
        """Recommends items to a subject, best first.

        Args:
            subject: A user's id or a `Subject`; None for a visitor.
            ratings: Ratings in stars by item id, oldest first: a visitor's ratings, or new ratings
                of a known user. Not to be combined with a `Subject`.
            liked_item_ids: Items that the subject likes, without a number of stars, oldest first.
                Not to be combined with a `Subject`.
            page_size: The maximum number of items; at most 1,000.
            page_token: The `next_page_token` of the previous page; empty for the first page. The
                subject and the options must be the same as for the first page.
            genres_any: Keep items that have at least one of these genres; at most 32.
            genres_all: Keep items that have all of these genres; at most 32.
            genres_none: Keep items that have none of these genres; at most 32.
            year_min: Keep items released in this year or later.
            year_max: Keep items released in this year or earlier.
            allowed_item_ids: Keep only these items; 1 to 10,000. None keeps all.
            excluded_item_ids: Drop these items; at most 10,000.
            include_seen: Whether to recommend items that the subject has already rated.
            min_predicted_stars: Recommend only items whose predicted rating is at least this many
                stars; None for no filter.
            diversity: How strongly to diversify the list, from 0 to 1. 0 ranks only by score;
                higher values penalise items that are similar to those ranked above them.
            release_id: Answer from this release; empty for the one in service.
            model: Rank and predict only with this model; empty for the ensemble.
            include_metadata: Whether to return the title, year and genres of each item.
            include_reasons: Whether to return the reasons for each item; limits `page_size` to 100.
            timeout: The deadline of this call in seconds; None for the client's default.
            metadata: Additional request metadata of this call: lower-case keys with their values.
                An `authorization` in it replaces the client's token.
        """
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        options = _requests.recommend_options(
            genres_any=genres_any,
            genres_all=genres_all,
            genres_none=genres_none,
            year_min=year_min,
            year_max=year_max,
            allowed_item_ids=allowed_item_ids,
            excluded_item_ids=excluded_item_ids,
            include_seen=include_seen,
            min_predicted_stars=min_predicted_stars,
            diversity=diversity,
            release_id=release_id,
            model=model,
            include_metadata=include_metadata,
            include_reasons=include_reasons,
        )
        request = _requests.recommend(resolved, page_size, page_token, options)
        return self._recommend(request, timeout, metadata)

    def recommend_pages(
        self,
        subject: str | Subject | None = None,
        *,
        ratings: Mapping[str, float] | None = None,
        liked_item_ids: Iterable[str] = (),
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        genres_any: Iterable[str] = (),
        genres_all: Iterable[str] = (),
        genres_none: Iterable[str] = (),
        year_min: int | None = None,
        year_max: int | None = None,
        allowed_item_ids: Iterable[str] | None = None,
        excluded_item_ids: Iterable[str] = (),
        include_seen: bool = False,
        min_predicted_stars: float | None = None,
        diversity: float = 0.0,
        release_id: str = "",
        model: str = "",
        include_metadata: bool = False,
        include_reasons: bool = False,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[Recommendations]:
        """Iterates over the pages of a recommendation list, one call per page.

        Pages neither repeat nor skip items, even if a new release comes into service in between.
        The iterator ends at the end of the list. The arguments are those of `recommend`, and
        `timeout` applies to each page.
        """
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        options = _requests.recommend_options(
            genres_any=genres_any,
            genres_all=genres_all,
            genres_none=genres_none,
            year_min=year_min,
            year_max=year_max,
            allowed_item_ids=allowed_item_ids,
            excluded_item_ids=excluded_item_ids,
            include_seen=include_seen,
            min_predicted_stars=min_predicted_stars,
            diversity=diversity,
            release_id=release_id,
            model=model,
            include_metadata=include_metadata,
            include_reasons=include_reasons,
        )
        request = _requests.recommend(resolved, page_size, page_token, options)
        return self._pages(request, timeout, metadata)

    def batch_recommend(
        self,
        subjects: Iterable[str | Subject],
        *,
        page_size: int = PAGE_SIZE,
        genres_any: Iterable[str] = (),
        genres_all: Iterable[str] = (),
        genres_none: Iterable[str] = (),
        year_min: int | None = None,
        year_max: int | None = None,
        allowed_item_ids: Iterable[str] | None = None,
        excluded_item_ids: Iterable[str] = (),
        include_seen: bool = False,
        min_predicted_stars: float | None = None,
        diversity: float = 0.0,
        release_id: str = "",
        model: str = "",
        include_metadata: bool = False,
        include_reasons: bool = False,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> Iterator[BatchAnswer]:
        """Recommends items to many subjects in one call.

        Answers arrive as they become ready, in any order, each with its subject. If a subject
        fails, its answer contains the error, and the batch continues. The call starts when the
        first answer is read from the iterator. It is cancelled when the iterator is closed, for
        example because a loop over it ends early. The server works only slightly ahead of a slow
        reader.

        `subjects` are 1 to 10,000 user ids or `Subject`s, `page_size` is the maximum number of
        items for each, and `timeout` is the deadline in seconds up to the last answer; None for the
        client's `batch_timeout`. The other arguments are those of `recommend`.
        """
        resolved = _requests.subjects(subjects)
        options = _requests.recommend_options(
            genres_any=genres_any,
            genres_all=genres_all,
            genres_none=genres_none,
            year_min=year_min,
            year_max=year_max,
            allowed_item_ids=allowed_item_ids,
            excluded_item_ids=excluded_item_ids,
            include_seen=include_seen,
            min_predicted_stars=min_predicted_stars,
            diversity=diversity,
            release_id=release_id,
            model=model,
            include_metadata=include_metadata,
            include_reasons=include_reasons,
        )
        request = _requests.batch_recommend(resolved, page_size, options)
        return self._batch(request, resolved, timeout, metadata)

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
        metadata: Metadata | None = None,
    ) -> PredictedRatings:
        """Predicts the ratings that a subject would give to items, in the order of `item_ids`.

        `item_ids` are 1 to 1,000 distinct items. If `model` is given, only that model predicts,
        instead of the ensemble. The other arguments are those of `recommend`.
        """
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.predict_ratings(resolved, item_ids, release_id, model)
        answer = self._read(self._stub().PredictRatings, request, timeout, metadata)
        return _convert.predicted_ratings(answer)

    def similar_items(
        self,
        item_id: str,
        *,
        page_size: int = PAGE_SIZE,
        genres_any: Iterable[str] = (),
        genres_all: Iterable[str] = (),
        genres_none: Iterable[str] = (),
        year_min: int | None = None,
        year_max: int | None = None,
        allowed_item_ids: Iterable[str] | None = None,
        excluded_item_ids: Iterable[str] = (),
        release_id: str = "",
        model: str = "",
        include_metadata: bool = False,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> SimilarItems:
        """Returns the items most similar to an item, most similar first.

        `item_id` is the item to compare with. If `model` is given, only its similarities are used,
        instead of the mean over all models. The other arguments are those of `recommend`.
        """
        filters = _requests.item_filter(
            genres_any=genres_any,
            genres_all=genres_all,
            genres_none=genres_none,
            year_min=year_min,
            year_max=year_max,
            allowed_item_ids=allowed_item_ids,
            excluded_item_ids=excluded_item_ids,
        )
        request = _requests.similar_items(
            item_id, page_size, release_id, model, include_metadata, filters
        )
        answer = self._read(self._stub().SimilarItems, request, timeout, metadata)
        return _convert.similar_items(answer)

    def status(self, *, timeout: float | None = None, metadata: Metadata | None = None) -> Status:
        """Returns the state of the gateway: its releases, models and backends."""
        request = pb.GetStatusRequest()
        response = self._call(self._stub().GetStatus, request, timeout, metadata, self._hedging)
        return _convert.status(response)
