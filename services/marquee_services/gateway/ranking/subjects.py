"""Who a request is about, in terms of a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marquee.v1 import scoring_service_pb2, types_pb2
from marquee_core.arrays import Float32, Int32
from marquee_core.ratings import Profiles
from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.wire import pack_floats, pack_ints


@dataclass(frozen=True)
class ResolvedSubject:
    """A subject of a release.

    Attributes:
        kind: How the release sees it (a SubjectKind).
        user: The user's index; -1 for nobody the release knows.
        items: Items rated in the request, the latest last (int32, distinct).
        ratings: Their ratings in stars (float32).
        profile: All that is known of the subject.
        unknown_items: Ids of rated and liked items that the release does not know.
    """

    kind: types_pb2.SubjectKind.ValueType
    user: int
    items: Int32
    ratings: Float32
    profile: Profiles
    unknown_items: tuple[str, ...]

    def query(self, candidates: Int32 | None) -> scoring_service_pb2.UserQuery:
        """The subject as the backends are asked about it."""
        return scoring_service_pb2.UserQuery(
            user_index=self.user if self.user >= 0 else None,
            rated_items=pack_ints(self.items),
            ratings=pack_floats(self.ratings),
            candidates=None if candidates is None else pack_ints(candidates),
        )


def resolve_subject(
    release: GatewayRelease, subject: types_pb2.Subject, field: str = "subject"
) -> ResolvedSubject:
    """Looks a subject's ids up.

    Args:
        release: The release.
        subject: The subject, whose form is valid.
        field: Its path in the request.

    Raises:
        InvalidFields: A rating is outside the release's scale.
    """
    low, high = release.manifest.data.rating_min, release.manifest.data.rating_max
    violations = [
        FieldViolation(f"{field}.ratings[{place}].stars", f"not in {low:g} to {high:g}")
        for place, rating in enumerate(subject.ratings)
        if not low <= rating.stars <= high
    ]
    if violations:
        raise InvalidFields(violations)
    ids = [*(rating.item_id for rating in subject.ratings), *subject.liked_item_ids]
    found = release.catalogue.items.indexes(ids)
    stars = np.array(
        [*(rating.stars for rating in subject.ratings), *(high for _ in subject.liked_item_ids)],
        dtype=np.float32,
    )
    known = found >= 0
    items, ratings = found[known], stars[known]
    user = release.users.index(subject.user_id) if subject.user_id else -1
    if user >= 0 and not len(release.data.matrix.seen(user)):
        # Without a training rating the models know no more of the user than of anybody.
        user = -1
    return ResolvedSubject(
        kind=_kind(user, len(items)),
        user=user,
        items=items,
        ratings=ratings,
        profile=release.data.matrix.profile(user, items, ratings),
        unknown_items=unknown_ids(ids, known.tolist()),
    )


def unknown_ids(ids: Sequence[str], known: Sequence[bool]) -> tuple[str, ...]:
    """The distinct ids that are not known, in order."""
    return tuple(
        dict.fromkeys(name for name, is_known in zip(ids, known, strict=True) if not is_known)
    )


def _kind(user: int, rated: int) -> types_pb2.SubjectKind.ValueType:
    if user >= 0:
        if rated:
            return types_pb2.SUBJECT_KIND_KNOWN_WITH_FRESH_RATINGS
        return types_pb2.SUBJECT_KIND_KNOWN
    return types_pb2.SUBJECT_KIND_VISITOR if rated else types_pb2.SUBJECT_KIND_COLD_START
