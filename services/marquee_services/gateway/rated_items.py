"""The ratings of a request's subject, read from the message once because reading them is slow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from marquee.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class RatedItems:
    """The ratings of a subject, in the order of the request.

    Attributes:
        ids: The ids of the rated items.
        stars: The rating of each item in stars.
    """

    ids: list[str]
    stars: list[float]

    @classmethod
    def of(cls, subject: types_pb2.Subject) -> Self:
        """Reads the ratings of a subject."""
        ratings = list(subject.ratings)
        return cls([rating.item_id for rating in ratings], [rating.stars for rating in ratings])
