"""Computes lists user by user, with the gateway's `Recommender` and the engines of this process.

It supports everything that a gateway does: reasons, diversity, `min_predicted_stars`, single
models, catalogues that are too large to be ranked completely, and users without training ratings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import ReleaseNotFound, ServiceError
from marquee_services.gateway.answer_metrics import AnswerMetrics
from marquee_services.gateway.answering.page_scorer import PageScorer
from marquee_services.gateway.answering.reasons import Explainer
from marquee_services.gateway.answering.recommend import Recommender
from marquee_services.gateway.caching.answer_cache import AnswerCache
from marquee_services.gateway.caching.list_cache import ListCache
from marquee_services.gateway.caching.request_key import RequestKey
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.ranking.deadline import Deadline
from marquee_services.gateway.ranking.router import Router
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.validation import validate
from marquee_services.lists.engine_backend import EngineBackend
from marquee_services.lists.release import LoadedRelease
from marquee_services.lists.request import ListRequest
from marquee_services.lists.user_list import UserError, UserList
from marquee_services.server.status import reason_name
from marquee_services.server.telemetry.metrics import Metrics

# No caller waits for an answer; the deadline only needs to be finite.
_SECONDS = 1e9


class _OneRelease(Releases):
    """Holds a single release."""

    def __init__(self, release: GatewayRelease) -> None:
        self._release = release

    def pick(self, release_id: str) -> GatewayRelease:
        if release_id not in ("", self._release.release_id):
            raise ReleaseNotFound(release_id)
        return self._release


class _OneRoute(Routing):
    """Routes every request to a single release, outside experiments."""

    def __init__(self, releases: _OneRelease) -> None:
        self._pick = releases.pick

    def route(self, subject_id: str, release_id: str = "", model: str = "") -> Route:  # noqa: ARG002
        return Route(self._pick(release_id))

    def record_list(self, route: Route, user_id: str) -> None:
        pass


class SingleLists:
    """Computes the lists of users one after another."""

    def __init__(self, loaded: LoadedRelease, request: ListRequest) -> None:
        """Creates a recommender for a release.

        Args:
            loaded: The release and its engines.
            request: The description of the lists.
        """
        self._release, self._request = loaded.gateway, request
        releases = _OneRelease(loaded.gateway)
        router = Router(
            {name: EngineBackend(name, engine) for name, engine in loaded.engines.items()}
        )
        self._recommender = Recommender(
            releases,
            _OneRoute(releases),
            PageScorer(router, ListCache(0), request.dense_limit, request.candidates),
            Explainer(router),
            AnswerCache(0),
            FreshFeedback(0),
            AnswerMetrics(Metrics()),
        )

    async def lists(self, user_ids: Sequence[str]) -> list[UserList | UserError]:
        """Returns each user's list, or the reason for which there is none."""
        found: list[UserList | UserError] = []
        for user_id in user_ids:
            try:
                request = validate(self._request.of_user(user_id))
                answer = await self._recommender.recommend(
                    request,
                    RequestKey.of(request),
                    RatedItems.of(request.subject),
                    Deadline(_SECONDS, 0.0),
                    paged=False,
                )
            except ServiceError as error:
                found.append(UserError(user_id, reason_name(error), str(error)))
            else:
                message = pb.RecommendResponse.FromString(answer.response(0))
                found.append(self._list(user_id, message))
        return found

    def _list(self, user_id: str, answer: pb.RecommendResponse) -> UserList:
        items = answer.items
        stars = None
        if self._release.predicts_stars:
            stars = np.array([item.predicted_stars for item in items], np.float32)
        has_reasons = self._request.recommend_options.include_reasons
        return UserList(
            user_id,
            self._release.catalogue.items.indexes([item.item_id for item in items]),
            np.array([item.score for item in items], np.float64),
            stars,
            [list(item.proposed_by) for item in items],
            tuple(answer.source.abstaining_models),
            [list(item.reasons) for item in items] if has_reasons else (),
        )
