"""Answers SimilarItems, which finds the items that are most similar to a given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Float32
from marquee_core.retrieval.top import top_indexes, union_of
from marquee_services.errors import ItemNotFound
from marquee_services.gateway.answering.degradation import degraded_reasons
from marquee_services.gateway.answering.messages import item_message, source_message
from marquee_services.gateway.backends.failures import BackendFailure
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.ranking.content import content_similarities
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.filters import filter_mask
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.ranking.similar import blend_similarities, equal_weights
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.scoring.similarities import Comparison, Similarities
from marquee_services.server.wire import MAX_RETRIEVED

# In a large catalogue, each model returns at least this many similar items, and this many pages.
_MIN_SIMILAR, _SIMILAR_PAGES = 2_000, 10


class SimilarItemsFinder:
    """Finds similar items. Requests must have been validated."""

    def __init__(self, releases: Releases, router: Router, dense_limit: int) -> None:
        """Creates a finder.

        Args:
            releases: The releases that a request may name.
            router: Computes the item's similarities to all others.
            dense_limit: The largest catalogue, in items, for which models return the similarities
                to all items; for a larger one, only to the most similar ones.
        """
        self._dense_limit = dense_limit
        self._releases = releases
        self._router = router

    async def similar(
        self, request: pb.SimilarItemsRequest, deadline: Deadline
    ) -> pb.SimilarItemsResponse:
        """Finds the eligible items with the highest positive similarity to an item.

        Models compare items by their ratings. An item without ratings is compared by content
        instead, unless the request selects a model.

        Raises:
            ServiceError: The request cannot be answered; the protocol lists the method's errors.
        """
        release = self._releases.pick(request.release_id)
        item = release.catalogue.items.index(request.item_id)
        if item < 0:
            raise ItemNotFound(request.item_id)
        eligible, unknown_ids = filter_mask(release, request.filter)
        eligible[item] = False
        size = request.page_size or DEFAULT_PAGE_SIZE
        if release.rating_counts[item] == 0 and not request.model:
            scaled: dict[str, Float32] = {}
            failures: list[BackendFailure] = []
            blend = content_similarities(release.catalogue, release.attributes, item)
        else:
            comparison = Comparison(item)
            if release.item_count > self._dense_limit:
                mask = eligible if request.HasField("filter") else None
                count = min(max(_MIN_SIMILAR, _SIMILAR_PAGES * size), MAX_RETRIEVED)
                comparison = Comparison(item, count, mask)
            found, failures = await self._router.compare(
                release, comparison, request.model, deadline
            )
            if comparison.count and found:
                found, more = await self._complete(release, item, request.model, found, deadline)
                failures += more
            blend, scaled = blend_similarities(found, item, release)
        best = top_indexes(blend, size, eligible & (blend > 0))
        best_of_model = {
            name: set(top_indexes(row, max(size, DEFAULT_PAGE_SIZE), eligible & (row > 0)).tolist())
            for name, row in sorted(scaled.items())
        }
        return pb.SimilarItemsResponse(
            items=[
                pb.SimilarItem(
                    item_id=release.catalogue.items.id(index),
                    rank=rank,
                    similarity=float(blend[index]),
                    proposed_by=[name for name, top in best_of_model.items() if index in top],
                    metadata=item_message(release, index) if request.include_metadata else None,
                )
                for rank, index in enumerate(best.tolist(), start=1)
            ],
            source=source_message(
                Route(release), equal_weights(scaled), degraded_reasons(failures)
            ),
            unknown_item_ids=unknown_ids,
        )

    async def _complete(
        self,
        release: GatewayRelease,
        item: int,
        model: str,
        best: Mapping[str, Similarities],
        deadline: Deadline,
    ) -> tuple[dict[str, Similarities], list[BackendFailure]]:
        """Returns the similarities by all models to the most similar items of each of them.

        Args:
            release: The release of the items.
            item: The item's index.
            model: The only model to use; "" for all.
            best: The most similar items of each model.
            deadline: The time that the backends have.
        """
        items = union_of([found.items for found in best.values() if found.items is not None])
        if not len(items):
            return dict(best), []
        rows, failures = await self._router.compare(
            release, Comparison(item, candidates=items), model, deadline
        )
        return {
            name: replace(found, highest=best[name].highest)
            for name, found in rows.items()
            if name in best
        }, failures
