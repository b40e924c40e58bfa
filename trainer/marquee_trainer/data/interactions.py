"""Ratings as parallel arrays of users, items and ratings."""

from __future__ import annotations

from dataclasses import dataclass

from marquee_core.arrays import Float32, Int32


@dataclass(frozen=True)
class Interactions:
    """Ratings for validation or testing.

    Attributes:
        users: User indexes (int32, n).
        items: Item indexes (int32, n).
        ratings: The ratings (float32, n).
    """

    users: Int32
    items: Int32
    ratings: Float32

    def __len__(self) -> int:
        return len(self.users)
