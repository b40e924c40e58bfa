"""One user's list, however it was computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Float32, Float64, Int32


@dataclass(frozen=True)
class UserList:
    """A user's list of n items.

    Attributes:
        user_id: The user's id.
        items: The item indexes, best first (int32, n).
        scores: The ranking scores (float64, n).
        stars: The predicted stars, in single precision as the API has them (float32, n); None if
            the release predicts none.
        proposed_by: For each item the models that have it among their own best.
        abstaining: The models that could not score the user.
        reasons: The reasons of each item; empty if none were asked for.
    """

    user_id: str
    items: Int32
    scores: Float64
    stars: Float32 | None
    proposed_by: Sequence[Sequence[str]]
    abstaining: Sequence[str] = ()
    reasons: Sequence[Sequence[pb.Reason]] = ()


@dataclass(frozen=True)
class UserError:
    """Why a user has no list.

    Attributes:
        user_id: The user's id.
        reason: The reason, as the API names it.
        message: What is wrong.
    """

    user_id: str
    reason: str
    message: str
