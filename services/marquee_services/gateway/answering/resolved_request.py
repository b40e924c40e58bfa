"""Resolves the release, the subject and the filter of a Recommend request."""

from __future__ import annotations

from dataclasses import dataclass

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.errors import (
    FeedbackUnavailable,
    FieldViolation,
    InvalidFields,
    PageTokenMismatch,
)
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback, UserFeedback
from marquee_services.gateway.ranking.ensemble_calls import ModelSelection
from marquee_services.gateway.ranking.filters import EligibleItems, allowed_items
from marquee_services.gateway.ranking.subjects import ResolvedSubject, resolve_subject
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.releases.release import GatewayRelease


@dataclass(frozen=True)
class ResolvedRequest:
    """A Recommend request resolved against a release.

    Attributes:
        list_id: The id of the list from which the page is cut; the same for all its pages.
        route: The release that answers, and the arm of an experiment.
        subject: The subject, resolved against the release.
        eligible: The items that may be recommended.
        unknown_items: The item ids in the request that the release does not contain.
        selection: The models that rank the list.
        offset: The number of items on the previous pages.
        feedback: The user's feedback on which the list is based.
    """

    list_id: str
    route: Route
    subject: ResolvedSubject
    eligible: EligibleItems
    unknown_items: tuple[str, ...]
    selection: ModelSelection
    offset: int
    feedback: UserFeedback

    @property
    def release(self) -> GatewayRelease:
        """The release that answers."""
        return self.route.release


def resolve_request(
    routing: Routing,
    fresh: FreshFeedback,
    request: pb.RecommendRequest,
    rated: RatedItems,
    token: PageToken | None,
    field: str,
) -> ResolvedRequest:
    """Resolves a request.

    A further page is cut from the list of the first page: it uses the same release, the same
    backends, and the user's feedback as it was then.

    Args:
        routing: Selects the release that answers.
        fresh: The feedback of users since the release was trained.
        request: The validated request.
        rated: The ratings of the subject.
        token: The verified page token of the request; None for the first page.
        field: The path of the subject in the caller's request, for error messages.

    Raises:
        ReleaseNotFound: The release that the options name is not loaded.
        NoRelease: No release is in service yet.
        PageTokenExpired: The page token's release is no longer loaded, or its experiment has ended.
        PageTokenMismatch: The page token names a backend that the release does not use, or the
            feedback on which the first page is based has been deleted.
        FeedbackUnavailable: This gateway has not yet read the feedback of the first page.
        ModelNotFound: The release has no model with the name in the options.
        InvalidFields: A rating or `min_predicted_stars` is outside the release's rating scale, or
            the release predicts no stars.
    """
    options, user_id = request.options, request.subject.user_id
    if token is None:
        route = routing.route(user_id, options.release_id, options.model)
    else:
        route = routing.of_page_token(token, user_id)
    release = route.release
    if token is not None and not (
        release.backends.issuperset(token.backends) and token.offset <= len(release.catalogue)
    ):
        raise PageTokenMismatch("damaged")
    if options.HasField("min_predicted_stars"):
        high = release.manifest.data.rating_max
        if not release.predicts_stars:
            reason = "the release was trained on implicit feedback and predicts no stars"
            raise InvalidFields([FieldViolation("options.min_predicted_stars", reason)])
        if options.min_predicted_stars > high:
            reason = f"must be at most {high:g}, not {options.min_predicted_stars:g}"
            raise InvalidFields([FieldViolation("options.min_predicted_stars", reason)])
    if options.model:
        release.model(options.model)
    feedback = _feedback(fresh, release, user_id, token)
    subject = resolve_subject(release, request.subject, field, feedback, rated)
    allowed, unknown = allowed_items(release, options.filter)
    required_backends = frozenset(token.backends) if token and not options.model else None
    return ResolvedRequest(
        list_id=token.list_id if token else route.new_list_id(user_id),
        route=route,
        subject=subject,
        eligible=EligibleItems(
            release,
            subject,
            allowed,
            only_rated=not options.filter.allowed_item_ids,
            only_unseen=not options.include_seen,
        ),
        unknown_items=tuple(dict.fromkeys((*subject.unknown_items, *unknown))),
        selection=ModelSelection(
            options.model,
            required_backends,
            required=required_backends is not None,
            left_out=frozenset(token.left_out) if token else frozenset(),
        ),
        offset=token.offset if token else 0,
        feedback=feedback,
    )


def _feedback(
    fresh: FreshFeedback, release: GatewayRelease, user_id: str, token: PageToken | None
) -> UserFeedback:
    """Returns the user's feedback; for a further page, as it was for the first page."""
    now = fresh.for_release(user_id, release.manifest)
    if token is None:
        return now
    if token.feedback_version > fresh.position:
        raise FeedbackUnavailable("the feedback of the first page has not been read yet")
    before = now.as_of(token.feedback_version)
    if before is None:
        raise PageTokenMismatch("feedback of the first page has been deleted")
    return before
