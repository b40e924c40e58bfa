"""Answers SimilarItems, which finds the items that are most similar to a given one."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Float32
from marquee_core.retrieval.top import top_indexes
from marquee_services.errors import ItemNotFound
from marquee_services.gateway.answering.degradation import degraded_reasons
from marquee_services.gateway.answering.messages import item_message, source_message
from marquee_services.gateway.backends.failures import BackendError
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.ranking.content import content_similarities
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.filters import filter_mask
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.ranking.similar import blend_similarities, equal_weights
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE


class SimilarItemsFinder:
    """Finds similar items. Requests must have been validated."""

    def __init__(self, releases: Releases, router: Router) -> None:
        """Creates a finder.

        Args:
            releases: The releases that a request may name.
            router: Computes the item's similarities to all others.
        """
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
            rows: dict[str, Float32] = {}
            failures: list[BackendError] = []
            blend = content_similarities(release.catalogue, release.attributes, item)
        else:
            rows, failures = await self._router.compare(release, item, request.model, deadline)
            blend, rows = blend_similarities(rows, item, release)
        best = top_indexes(blend, size, eligible & (blend > 0))
        best_of_model = {
            name: set(top_indexes(row, max(size, DEFAULT_PAGE_SIZE), eligible & (row > 0)).tolist())
            for name, row in sorted(rows.items())
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
            source=source_message(Route(release), equal_weights(rows), degraded_reasons(failures)),
            unknown_item_ids=unknown_ids,
        )
