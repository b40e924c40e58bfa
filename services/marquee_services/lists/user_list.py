"""The list of a user."""

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
        items: The item indexes, the best first (int32, n).
        scores: The ranking scores (float64, n).
        stars: The predicted stars, in single precision as in the API (float32, n); None if the
            release predicts none.
        proposed_by: For each item, the models that have it among their own best items.
        abstaining: The models that could not score the user.
        reasons: The reasons for each item; empty if none were requested.
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
    """The error of a user without a list.

    Attributes:
        user_id: The user's id.
        reason: The name of the API's error reason.
        message: The error message.
    """

    user_id: str
    reason: str
    message: str
