"""The rating scale and the kind of feedback."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl

from marquee_core.arrays import Bool, Float32
from marquee_trainer.data.errors import RatingsError

# MovieLens' scale in stars: half stars, which include the whole stars of the older data sets.
LOWEST, HIGHEST, HALF_STAR = 0.5, 5.0, 0.5

# Upper ends of common scales, and the steps that are recognised.
_COMMON_HIGHS = (1.0, 5.0, 10.0, 20.0, 100.0)
_STEPS = (1.0, 0.5)
_NUMBER = r"[-+−]?\d+(?:\.\d+)?"
# An unrated marker is detected only if the number of distinct ratings is in this range.
_FEWEST_APART, _MOST_APART = 4, 32
# The distance of the marker, as a multiple of the largest distance between other ratings.
_FAR = 2.0
_SCALE = re.compile(rf"\s*({_NUMBER})\s*(?::|\.\.|–)\s*({_NUMBER})\s*")


class Feedback(StrEnum):
    """What a row reveals about the user's opinion of the item.

    Attributes:
        EXPLICIT: The user gave a rating, so that low values mean dislike.
        IMPLICIT: The user interacted with the item, such as by a play, purchase or click, possibly
            several times.
    """

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


@dataclass(frozen=True)
class RatingScale:
    """The ratings that users can give.

    Attributes:
        low: The lowest rating.
        high: The highest rating.
        step: The distance between neighbouring ratings; 0 for a continuous scale.
    """

    low: float
    high: float
    step: float

    @classmethod
    def of(cls, ratings: Float32) -> RatingScale:
        """Detects the scale of ratings.

        Half stars from 0.5 to 5 and whole stars from 1 to 5 are recognised first, then common
        scales (thumbs, 0–5, 1–10, 0–100, symmetric ones such as −10–10); otherwise the scale ranges
        from the lowest to the highest rating.
        """
        ratings = _distinct(ratings)
        step = _step(ratings)
        least, most = float(ratings.min()), float(ratings.max())
        if step and least >= LOWEST and most <= HIGHEST and not _are_thumbs(least, most):
            return cls(LOWEST, HIGHEST, HALF_STAR) if step < 1 else cls(1.0, HIGHEST, 1.0)
        extent = max(abs(least), abs(most))
        high = next((common for common in _COMMON_HIGHS if extent <= common), most)
        if least < 0:
            if high < extent:
                return cls(least, max(most, -least), step)
            return cls(-high, high, 2.0 if bool((np.abs(ratings) == 1).all()) else step)
        if high > 1 and least >= 1 and high <= _COMMON_HIGHS[2]:
            return cls(1.0, high, step)
        return cls(0.0, high, step)

    @classmethod
    def of_implicit(cls, strengths: Float32) -> RatingScale:
        """The scale of implicit feedback: from 0, no interaction, to the highest strength."""
        strengths = _distinct(strengths)
        most = float(strengths.max())
        return cls(0.0, most, _step(strengths)) if most > 0 else cls(0.0, 1.0, 1.0)

    @classmethod
    def parse(cls, text: str) -> RatingScale:
        """Parses `LOW:HIGH`; the step is detected later, from the ratings.

        Raises:
            RatingsError: The text is malformed, or LOW is not less than HIGH.
        """
        match = _SCALE.fullmatch(text)
        if not match:
            raise RatingsError(f"{text!r} is not a scale of the form LOW:HIGH, such as 1:10")
        low, high = (float(part.replace("−", "-")) for part in match.groups())
        if low >= high:
            raise RatingsError(f"the scale {text!r} is empty: LOW must be less than HIGH")
        return cls(low, high, 0.0)

    def stepped(self, ratings: Float32) -> RatingScale:
        """Returns this scale with the step of the given ratings."""
        return RatingScale(self.low, self.high, _step(_distinct(ratings)))

    def from_stars(self, stars: float) -> float:
        """Converts a number of stars to the equivalent rating on this scale.

        Thresholds such as "a like is 4 stars or more" are configured in stars. They apply unchanged
        on the scales of MovieLens, and are mapped linearly to any other scale: 1 star is the lowest
        rating, 5 stars are the highest.
        """
        if self.high == HIGHEST and self.low in (LOWEST, 1.0):
            return stars
        return self.low + (stars - 1.0) / (HIGHEST - 1.0) * (self.high - self.low)

    def contains(self, ratings: Float32) -> Bool:
        """Marks the ratings that are on the scale (bool, n); NaN is not."""
        inside: Bool = (ratings >= self.low) & (ratings <= self.high)
        return inside

    def __str__(self) -> str:
        steps = f"in steps of {self.step:g}" if self.step else "continuous"
        return f"{self.low:g} to {self.high:g}, {steps}"


def find_unrated_marker(ratings: Float32) -> float | None:
    """Finds a rating of 0 or less that may mean "not rated"; None if there is none.

    It is the lowest rating, and either much further from the next one than all others are from each
    other, or 0 and the most common one, as in data sets of books and series that count readers.
    """
    if ratings.min(initial=1.0) > 0:
        return None
    found = pl.Series("rating", ratings).value_counts().sort("rating")
    values, counts = (found[name].to_numpy() for name in ("rating", "count"))
    if len(values) < _FEWEST_APART or len(values) > _MOST_APART or values[0] > 0 or values[1] < 1:
        return None
    gaps = np.diff(values)
    is_far = gaps[0] >= _FAR * gaps[1:].max()
    is_filler = values[0] == 0 and counts[0] == counts.max()
    return float(values[0]) if is_far or is_filler else None


def detect_feedback(distinct: Float32, count: int) -> Feedback:
    """Implicit feedback if there are several ratings and all are equal, explicit otherwise.

    Args:
        distinct: The distinct ratings (float32, m).
        count: The number of ratings.
    """
    return Feedback.IMPLICIT if count > 1 and len(distinct) == 1 else Feedback.EXPLICIT


def _distinct(ratings: Float32) -> Float32:
    """The distinct ratings, usually few."""
    return pl.Series(ratings).unique().to_numpy()


def _step(ratings: Float32) -> float:
    for step in _STEPS:
        if bool((ratings % step == 0).all()):
            return step
    return 0.0


def _are_thumbs(least: float, most: float) -> bool:
    return least >= 0 and most <= 1 and least < most and least == 0
