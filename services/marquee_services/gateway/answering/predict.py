"""Answers PredictRatings, which predicts a subject's ratings of items in stars."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import NoPredictedStars
from marquee_services.gateway.answering.degradation import degraded_reasons
from marquee_services.gateway.answering.messages import source_message
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.ensemble_calls import ModelSelection
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.ranking.subjects import resolve_subject


class Predictor:
    """Predicts ratings. Requests must have been validated."""

    def __init__(self, routing: Routing, router: Router, fresh: FreshFeedback) -> None:
        """Creates a predictor.

        Args:
            routing: Selects the release that answers a request.
            router: Scores the items.
            fresh: The feedback of users since the release was trained.
        """
        self._routing = routing
        self._router = router
        self._fresh = fresh

    async def predict(
        self, request: pb.PredictRatingsRequest, deadline: Deadline
    ) -> pb.PredictRatingsResponse:
        """Predicts the ratings of the request's items, in their order.

        Items that the release does not contain get no prediction.

        Raises:
            ServiceError: The request cannot be answered; the protocol lists the method's errors.
        """
        user_id = request.subject.user_id
        route = self._routing.route(user_id, request.release_id, request.model)
        release = route.release
        if not release.predicts_stars:
            raise NoPredictedStars(release.release_id)
        feedback = self._fresh.for_release(user_id, release.manifest)
        subject = resolve_subject(release, request.subject, feedback=feedback)
        indexes = release.catalogue.items.indexes(request.item_ids)
        known = indexes >= 0
        scored = await self._router.score(
            release, subject, indexes[known], ModelSelection(request.model), deadline
        )
        stars = iter(scored.stars.tolist())
        return pb.PredictRatingsResponse(
            predictions=[
                pb.PredictedRating(item_id=item_id, stars=next(stars) if is_known else None)
                for item_id, is_known in zip(request.item_ids, known.tolist(), strict=True)
            ],
            subject_kind=subject.kind,
            source=source_message(
                route, scored.blends, degraded_reasons(scored.failures), scored.abstaining
            ),
            unknown_item_ids=subject.unknown_items,
        )
