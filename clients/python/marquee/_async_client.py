"""The asyncio client, which has the same methods as the blocking client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marquee._answers import (
    BatchAnswer,
    FoundItems,
    PredictedRatings,
    Recommendations,
    SimilarItems,
)
from marquee._async_calls import AsyncCalls
from marquee._channel import BATCH_TIMEOUT, TIMEOUT, Settings
from marquee._hedging import HEDGE_AFTER_S
from marquee._lazy import LazyModule
from marquee._options import PAGE_SIZE, TLS, Metadata, Subject, Token
from marquee._state import Status
from marquee._types import Item

if TYPE_CHECKING:
    from marquee import _convert, _requests
    from marquee.v1 import recommender_service_pb2 as pb
else:
    _convert = LazyModule("marquee._convert")
    _requests = LazyModule("marquee._requests")
    pb = LazyModule("marquee.v1.recommender_service_pb2")


class AsyncClient(AsyncCalls):
    """A client of a Marquee gateway for asyncio. Tasks may share it.

        async with AsyncClient("localhost:50051") as client:
            for movie in await client.recommend("42", include_metadata=True):
                print(movie.rank, movie.title)

    Arguments, methods and errors are those of `Client`. Each event loop has its own connection,
    which is opened on the first call. A process may fork before its first call. gRPC's asyncio API
    does not support a later fork, so calls in the child process then raise a `RuntimeError`.
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

    async def recommend(
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
        """Recommends items to a subject, best first; see `Client.recommend`."""
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
        return await self._recommend(request, timeout, metadata)

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
    ) -> AsyncIterator[Recommendations]:
        """Iterates over the pages of a recommendation list; see `Client.recommend_pages`."""
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
    ) -> AsyncIterator[BatchAnswer]:
        """Recommends items to many subjects in one call; see `Client.batch_recommend`.

        If a loop over the answers ends early, the call is cancelled when the iterator is closed:
        immediately inside `contextlib.aclosing`, otherwise when the event loop finalises it.
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
        metadata: Metadata | None = None,
    ) -> PredictedRatings:
        """Predicts the ratings of items; see `Client.predict_ratings`."""
        resolved = _requests.subject(subject, ratings, liked_item_ids)
        request = _requests.predict_ratings(resolved, item_ids, release_id, model)
        response = await self._read(self._stub().PredictRatings, request, timeout, metadata)
        return _convert.predicted_ratings(response)

    async def similar_items(
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
        """Returns the items most similar to an item; see `Client.similar_items`."""
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
        response = await self._read(self._stub().SimilarItems, request, timeout, metadata)
        return _convert.similar_items(response)

    async def search_items(
        self,
        query: str,
        *,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> FoundItems:
        """Finds items whose titles contain the words of a query; see `Client.search_items`."""
        request = _requests.search_items(query, page_size, page_token)
        response = await self._read(self._stub().SearchItems, request, timeout, metadata)
        return _convert.found_items(response)

    async def search_pages(
        self,
        query: str,
        *,
        page_size: int = PAGE_SIZE,
        timeout: float | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[FoundItems]:
        """Iterates over the pages of search results; see `Client.search_pages`."""
        token = ""
        while True:
            page = await self.search_items(
                query, page_size=page_size, page_token=token, timeout=timeout, metadata=metadata
            )
            yield page
            if not (token := page.next_page_token):
                return

    async def get_item(
        self, item_id: str, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Item:
        """Returns metadata, attributes and rating statistics of an item; see `Client.get_item`."""
        request = _requests.get_item(item_id)
        response = await self._read(self._stub().GetItem, request, timeout, metadata)
        return _convert.item(response.item)

    async def status(
        self, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Status:
        """Returns the state of the gateway: its releases, models and backends."""
        request = pb.GetStatusRequest()
        response = await self._call(
            self._stub().GetStatus, request, timeout, metadata, self._hedging
        )
        return _convert.status(response)
