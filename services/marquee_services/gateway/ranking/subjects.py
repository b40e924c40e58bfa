"""Resolves the subject of a request against a release: its kind, its indexes and its profile.

This module builds a visitor's profile, and merges a known user's recorded feedback and fresh
ratings with the training ratings. The scorers (`marquee_core.scorers`) fold in the profile: those
of the gateway's own models here, all others in the backends, which build the same profile from
`ResolvedSubject.query`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from marquee.v1 import types_pb2
from marquee_core.arrays import Bool, Float32, Int32
from marquee_core.feedback.event_ratings import event_stars, is_explicit
from marquee_core.feedback.events import FeedbackKind
from marquee_core.ratings import Profiles
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.gateway.feedback.fresh import NO_FEEDBACK, UserFeedback
from marquee_services.gateway.rated_items import RatedItems
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.scoring.plan import Query


@dataclass(frozen=True)
class ResolvedSubject:
    """A subject whose ids have been looked up in a release.

    Attributes:
        kind: Whether the subject is a known user, a visitor or a cold start (a SubjectKind).
        user: The user's index; -1 if the user has no training ratings in the release.
        items: Indexes of the items rated or liked in recorded feedback and in the request, ordered
            by time, oldest first (int32, distinct).
        ratings: The ratings of `items` in stars (float32).
        unknown_items: Ids of rated or liked items that are not in the release.
        data: The training ratings and the baseline of the release.
    """

    kind: types_pb2.SubjectKind.ValueType
    user: int
    items: Int32
    ratings: Float32
    unknown_items: tuple[str, ...]
    data: ReleaseData

    @cached_property
    def profile(self) -> Profiles:
        """All ratings of the subject: its training ratings merged with `ratings`."""
        return self.data.matrix.profile(self.user, self.items, self.ratings)

    @cached_property
    def bias(self) -> np.float32:
        """b_u, the subject's bias in the baseline, in stars."""
        bias: np.float32 = self.data.baseline.user_bias(self.profile)[0]
        return bias

    def set_bias(self, bias: float) -> None:
        """Sets the bias that a backend has computed, so that it is not computed again."""
        self.__dict__["bias"] = np.float32(bias)

    def query(
        self, candidates: Int32 | None, eligible: Bool | None = None, new_only: bool = False
    ) -> Query:
        """Returns the backends' query for this subject.

        Args:
            candidates: Indexes of the items to score (int32); None for the whole catalogue.
            eligible: Whether each item may be among a model's own best items (bool, items); None to
                allow all.
            new_only: Whether to exclude unrated items and those of the profile too.
        """
        return Query(self.user, self.items, self.ratings, candidates, eligible, new_only)


def resolve_subject(
    release: GatewayRelease,
    subject: types_pb2.Subject,
    field: str = "subject",
    feedback: UserFeedback = NO_FEEDBACK,
    rated: RatedItems | None = None,
) -> ResolvedSubject:
    """Looks up a subject's ids in a release and builds its profile.

    Args:
        release: The release that answers the request.
        subject: The validated subject.
        field: The subject's path in the request, for error messages.
        feedback: The user's recorded feedback. It counts as older than the request's ratings, which
            replace it.
        rated: The subject's ratings, if they have already been read.

    Raises:
        InvalidFields: A rating is outside the release's rating scale; for implicit feedback, the
            strength of an interaction is negative.
    """
    low, high = release.manifest.data.rating_min, release.manifest.data.rating_max
    scale = release.allowed_stars
    rated = rated or RatedItems.of(subject)
    if rated.stars and not (min(rated.stars) in scale and max(rated.stars) in scale):
        raise InvalidFields(
            [
                FieldViolation(f"{field}.ratings[{position}].stars", f"{scale}, not {stars:g}")
                for position, stars in enumerate(rated.stars)
                if stars not in scale
            ]
        )
    user = release.users.index(subject.user_id) if subject.user_id else -1
    if user >= 0 and (feedback.is_forgotten or not len(release.data.matrix.seen(user))):
        # The models know nothing about a user without training ratings.
        user = -1
    liked = subject.liked_item_ids
    ids = [*rated.ids, *liked] if liked else rated.ids
    items = release.catalogue.items.indexes(ids)
    ratings = np.fromiter(
        (*rated.stars, *([high] * len(liked))) if liked else rated.stars, np.float32, len(ids)
    )
    if not release.predicts_stars:
        given = len(rated.stars)
        ratings[:given] = _strengths(ratings[:given], low)
    unknown_items: tuple[str, ...] = ()
    if ids and items.min() < 0:
        known = items >= 0
        unknown_items = _unknown_ids(ids, known.tolist())
        items, ratings = items[known], ratings[known]
    if feedback.events:
        earlier_items, earlier_ratings = _recorded(release, user, feedback, set(ids))
        items = np.concatenate([earlier_items, items])
        ratings = np.concatenate([earlier_ratings, ratings])
    kind = _kind(user, len(items))
    withdrawn = _withdrawn(release, user, feedback)
    if len(withdrawn):
        # The models' parameters of the user contain the withdrawn ratings, so all others are
        # folded in like those of a visitor.
        items, ratings = _without(release, user, withdrawn, items, ratings)
        user, kind = -1, _kind(user, 1) if len(items) else _kind(-1, 0)
    if not release.predicts_stars:
        if user < 0 and not (ratings >= low).any():
            # The items are excluded from the list, but say nothing about the subject's taste.
            kind = _kind(user, 0)
        # Entries that are not interactions come first, so that the
        # others do not count as older because of them.
        order = np.argsort(ratings >= low, kind="stable")
        items, ratings = items[order], ratings[order]
    return ResolvedSubject(
        kind=kind,
        user=user,
        items=items,
        ratings=ratings,
        unknown_items=unknown_items,
        data=release.data,
    )


def _recorded(
    release: GatewayRelease, user: int, feedback: UserFeedback, replaced: Set[str]
) -> tuple[Int32, Float32]:
    """Returns the items of recorded feedback that are in the release, with ratings, oldest first.

    Args:
        release: The release that answers the request.
        user: The user's index; -1 if the user has no training ratings.
        feedback: The user's feedback.
        replaced: Ids of the items that the request rates.

    Returns:
        Item indexes (int32, distinct) and their ratings in stars (float32).
    """
    low, high = release.manifest.data.rating_min, release.manifest.data.rating_max
    events = [event for event in feedback.ratings if event.item_id not in replaced]
    items = release.catalogue.items.indexes([event.item_id for event in events])
    stars = np.array(
        [event_stars(event.kind, event.value, low, high) for event in events], dtype=np.float32
    )
    if not release.predicts_stars:
        stars = _strengths(stars, low)
    used = items >= 0
    if user >= 0:
        # A play is weaker evidence than an earlier rating by the user.
        plays = np.array([not is_explicit(event.kind) for event in events], dtype=np.bool_)
        used &= ~(plays & np.isin(items, release.data.matrix.seen(user)))
    return items[used], stars[used]


def _withdrawn(release: GatewayRelease, user: int, feedback: UserFeedback) -> Int32:
    """Returns the items whose training ratings stem from events that the user has deleted since.

    An item is not included if its training rating differs from that of the deleted event, because
    it then has another source.

    Returns:
        Item indexes, ascending and distinct (int32).
    """
    if user < 0 or not feedback.withdrawn:
        return np.empty(0, dtype=np.int32)
    low, high = release.manifest.data.rating_min, release.manifest.data.rating_max
    profile = release.data.matrix.profiles([user])
    known = dict(zip(profile.items.tolist(), profile.ratings.tolist(), strict=True))
    items = release.catalogue.items.indexes([event.item_id for event in feedback.withdrawn])
    found = set()
    for item, event in zip(items.tolist(), feedback.withdrawn, strict=True):
        if item not in known:
            continue
        # The stars of a deleted rating are no longer in the log.
        stars = known[item]
        if event.kind is not FeedbackKind.RATING:
            stars = event_stars(event.kind, 0.0, low, high)
            if event.kind is FeedbackKind.DISLIKE and not release.predicts_stars:
                stars = low - 1.0
        if math.isclose(known[item], stars, rel_tol=1e-6, abs_tol=1e-6):
            found.add(item)
    return np.array(sorted(found), dtype=np.int32)


def _without(
    release: GatewayRelease, user: int, withdrawn: Int32, items: Int32, ratings: Float32
) -> tuple[Int32, Float32]:
    """Returns a user's training ratings, except those of some items, followed by later ratings.

    Args:
        release: The release that answers the request.
        user: The user's index.
        withdrawn: The items whose training ratings are excluded (int32).
        items: Later rated items, ordered by time, oldest first (int32, distinct).
        ratings: The ratings of `items` in stars (float32).

    Returns:
        Item indexes, ordered by time, oldest first (int32, distinct), and ratings in stars.
    """
    trained = release.data.matrix.profiles([user])
    kept = ~np.isin(trained.items, withdrawn) & ~np.isin(trained.items, items)
    oldest_first = np.argsort(-trained.later_counts[kept], kind="stable")
    return (
        np.concatenate([trained.items[kept][oldest_first], items]),
        np.concatenate([trained.ratings[kept][oldest_first], ratings]),
    )


def _strengths(values: Float32, low: float) -> Float32:
    """Returns strengths of interactions, with values below `low` for items without interaction.

    Implicit feedback has no dislikes: models treat every strength of at least `low` as an
    interaction. Items with lower values are excluded from the list and have no other effect.

    Args:
        values: The strengths of interactions or events (float32, n).
        low: The lowest strength, which means that there was no interaction: 0 plays, or a dislike.
    """
    strengths: Float32 = np.where(values > low, values, low - 1.0).astype(np.float32)
    return strengths


def _unknown_ids(ids: Sequence[str], known: Sequence[bool]) -> tuple[str, ...]:
    """Returns the distinct ids that are not in the release, in the request's order."""
    return tuple(
        dict.fromkeys(name for name, is_known in zip(ids, known, strict=True) if not is_known)
    )


def _kind(user: int, rated: int) -> types_pb2.SubjectKind.ValueType:
    if user >= 0:
        if rated:
            return types_pb2.SUBJECT_KIND_KNOWN_WITH_FRESH_RATINGS
        return types_pb2.SUBJECT_KIND_KNOWN
    return types_pb2.SUBJECT_KIND_VISITOR if rated else types_pb2.SUBJECT_KIND_COLD_START
