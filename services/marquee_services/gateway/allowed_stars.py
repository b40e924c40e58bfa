"""The ratings that a release accepts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class AllowedStars:
    """The limits of ratings; as text, what a rating must be.

    Attributes:
        low: The lowest rating in stars, or the lowest strength of an interaction.
        high: The highest rating in stars; ∞ for the strength of an interaction, such as a number of
            plays, which has no upper limit.
    """

    low: float
    high: float

    def __contains__(self, stars: float) -> bool:
        """Returns whether a rating is allowed."""
        return self.low <= stars <= self.high

    def __str__(self) -> str:
        """Returns what a rating must be, for error messages."""
        if self.high == math.inf:
            return f"must be at least {self.low:g}"
        return f"must be between {self.low:g} and {self.high:g}"
