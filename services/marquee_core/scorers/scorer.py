"""The interface of scorers, which the services and the trainer's evaluation use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np

from marquee_core.arrays import Float32, Float64, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.popularity import Recency


@dataclass(frozen=True)
class ReleaseData:
    """The data of a release that all its models share.

    Attributes:
        matrix: The training ratings.
        baseline: The bias baseline, fitted on the training ratings.
        recency: The recency-weighted rating counts of the items; None if the release has no
            recency-weighted popularity.
        dislike_limit: The highest rating that is a dislike, in stars, from
            `marquee_core.ratings.dislike_limit`; −∞ if no rating is one, as for implicit feedback.
    """

    matrix: RatingsMatrix
    baseline: Baseline
    recency: Recency | None = None
    dislike_limit: float = -math.inf


class Scorer(Protocol):
    """A fitted model, ready to score.

    Unknown users and empty profiles are valid input. For a profile without ratings, a rating
    predictor answers μ + b_i for each item, with the biases of the baseline or its own; a ranker
    answers 0.
    """

    @property
    def output(self) -> Output:
        """The meaning of the scores: predicted stars, or an affinity that only ranks."""

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Scores items for each of B users.

        A user whose profile has `needs_fold_in` set is folded in: scored from the ratings in the
        profile. For any other user a model may use what it learned about the user in training;
        models such as EASE, SLIT and iALS keep nothing per user and always score from the profile.

        Args:
            profiles: The profiles of the users.
            items: The indexes of the items to score (int32, C); None for the whole catalogue.

        Returns:
            The scores (float32, B × C), not clipped to the rating scale. The row of a user whom
            the model cannot score is NaN.
        """

    def similarities(self, item: int) -> Float32 | None:
        """Returns the similarity of an item to every item.

        Args:
            item: The index of the item.

        Returns:
            The similarities, from -1 to 1, with 1 for the item itself (float32, items). None if
            the model has no item similarities.
        """


@runtime_checkable
class ScoresPairs(Protocol):
    """A scorer that scores a few items of its own for each user in one pass over a batch."""

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """Scores other items for each of B users.

        Args:
            profiles: The profiles of the users.
            items: The indexes of each user's items (int32, B × C).

        Returns:
            The scores, as from `Scorer.score` (float32, B × C).
        """


@runtime_checkable
class Approximates(Protocol):
    """A scorer that can approximate its scores of many items with much less work.

    The approximation only finds the items that are then scored exactly.
    """

    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32 | None:
        """Approximates the scores of items for each of B users.

        Args:
            profiles: The profiles of the users.
            items: The indexes of the items (int32, C); None for the whole catalogue.

        Returns:
            The scores, about as from `Scorer.score` (float32, B × C, which the caller may change);
            None to score exactly.
        """


@runtime_checkable
class ScoresCore(Protocol):
    """A scorer that scores a part of a large catalogue with much less work than the whole of it."""

    def score_core(self, profiles: Profiles) -> tuple[Int32, Float32]:
        """Scores the core of the catalogue, in which most users' best items are.

        Args:
            profiles: The profiles of B users.

        Returns:
            The items of the core, ascending (int32, m), and their scores (float32, B × m).
        """


@runtime_checkable
class FoldsOnRequest(Protocol):
    """A scorer that can do without what it keeps for each known user.

    It then folds known users in whenever they are scored, as it does visitors: less memory and
    smaller files, and more time for an answer.
    """

    def without_users(self) -> Scorer:
        """The same scorer with nothing kept for known users; `save` leaves their files out."""


@runtime_checkable
class WarmsUp(Protocol):
    """A scorer whose first calls are slower than later ones."""

    def warm_up(self) -> None:
        """Makes the slow first calls, before there are requests."""


def score_pairs(scorer: Scorer, profiles: Profiles, items: Int32) -> Float32:
    """Scores other items for each user; see `ScoresPairs.score_pairs`.

    A scorer that is not `ScoresPairs` scores one user at a time.
    """
    if implements(type(scorer), ScoresPairs):
        return cast("ScoresPairs", scorer).score_pairs(profiles, items)
    scores = np.empty(items.shape, dtype=np.float32)
    for row in range(len(profiles)):
        scores[row] = scorer.score(profiles.take(np.array([row])), items[row])[0]
    return scores


@lru_cache
def implements(scorer: type, protocol: type) -> bool:
    """Returns whether a class of scorers implements a protocol.

    The answer is remembered: to ask anew for every call would cost more than some scores.
    """
    return issubclass(scorer, protocol)


@dataclass(frozen=True)
class RatedEvidence:
    """How a user's rated items add up to a model's score of one item.

    Attributes:
        items: The indexes of the rated items with the largest absolute contributions, those
            largest first (int32, n).
        similarities: The similarity of each to the scored item; 0 if the model has no item
            similarities (float32, n).
        contributions: What each adds to the score, in the unit of the model's scores; may be
            negative (float32, n).
        total: What all rated items add to the score, those that are not among `items` included.
        remainder: The part of the score that no rated item explains, such as the baseline's
            prediction. The score is `total + remainder`, up to rounding.
    """

    items: Int32
    similarities: Float32
    contributions: Float32
    total: float
    remainder: float

    @classmethod
    def largest(
        cls,
        rated: Int32,
        similarities: Float32 | None,
        contributions: Float32 | Float64,
        remainder: float,
        count: int,
    ) -> RatedEvidence:
        """Selects the rated items with the largest absolute contributions that are not 0.

        Args:
            rated: The indexes of all rated items that contribute (int32, n).
            similarities: The similarity of each to the scored item (float32, n); None if the model
                has no item similarities.
            contributions: What each adds to the score (float32 or float64, n).
            remainder: The part of the score that no rated item explains.
            count: The maximum number of items to select.
        """
        order = np.argsort(-np.abs(contributions), kind="stable")[:count]
        order = order[contributions[order] != 0]
        chosen = np.zeros(len(order), np.float32) if similarities is None else similarities[order]
        return cls(
            rated[order].astype(np.int32),
            chosen,
            contributions[order].astype(np.float32),
            float(contributions.sum(dtype=np.float64)),
            remainder,
        )


@dataclass(frozen=True)
class NeighbourEvidence:
    """The similar users who rated an item.

    Attributes:
        count: The number of similar users who rated the item.
        mean_stars: The mean of their ratings, weighted by similarity, in stars; 0 if there are
            none.
        contribution: What they add to the prediction, in stars; may be negative.
    """

    count: int
    mean_stars: float
    contribution: float


@runtime_checkable
class ExplainsByItems(Protocol):
    """A scorer whose scores are sums over the user's rated items, plus a remainder."""

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """Decomposes the score of each item into the contributions of the user's rated items.

        Args:
            profile: The profile of a single user.
            items: The indexes of the scored items (int32, n).
            count: The maximum number of rated items to return for each.

        Returns:
            The evidence for each item.
        """


@runtime_checkable
class ExplainsByNeighbours(Protocol):
    """A scorer that explains predictions by similar users."""

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """Summarises the ratings of similar users for each item.

        Args:
            profile: The profile of a single user.
            items: The indexes of the predicted items (int32, n).
        """


class LoadScorer(Protocol):
    """A function that loads the scorer of a model."""

    def __call__(self, folder: Path, data: ReleaseData) -> Scorer:
        """Loads a scorer.

        Args:
            folder: The folder with the model's artifacts.
            data: The data of the release that the model belongs to.

        Raises:
            ArtifactError: An artifact is missing, damaged, or does not fit the data.
        """
