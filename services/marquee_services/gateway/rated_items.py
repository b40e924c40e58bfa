"""The ratings of a request's subject, read once: reading them takes longer than checking them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from marquee.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class RatedItems:
    """The items that a subject rates, in the request's order.

    Attributes:
        ids: The ids of the items.
        stars: The rating of each in stars.
    """

    ids: list[str]
    stars: list[float]

    @classmethod
    def of(cls, subject: types_pb2.Subject) -> Self:
        """Reads the ratings of a subject."""
        ratings = list(subject.ratings)
        return cls([rating.item_id for rating in ratings], [rating.stars for rating in ratings])
