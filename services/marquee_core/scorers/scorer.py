"""The interface of scorers, which is used by the services and by the trainer's evaluation."""

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
    """The data of a release that is shared by all of its models.

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
    predictor returns μ + b_i for each item, with the baseline's item biases or its own, and a
    ranker returns 0. Services treat a ranker that returns 0 for every item as one that cannot score
    the user.
    """

    @property
    def output(self) -> Output:
        """The meaning of the scores: predicted stars, or an affinity that only ranks."""

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Scores items for each of B users.

        A user whose profile has `needs_fold_in` set is folded in, that is, scored from the ratings
        in the profile. For any other user a model may use the user's trained parameters. Models
        such as EASE, SLIT and iALS have no parameters per user and always score from the profile.

        Args:
            profiles: The profiles of the users.
            items: The indexes of the items to score (int32, C); None for the whole catalogue.

        Returns:
            The scores (float32, B × C), not clipped to the rating scale. A row is NaN if the model
            cannot score the user.
        """


@runtime_checkable
class ComparesItems(Protocol):
    """A scorer that has item similarities."""

    def similarities(self, item: int) -> Float32:
        """Returns the similarity of an item to every item.

        Args:
            item: The index of the item.

        Returns:
            The similarities, from -1 to 1, with 1 for the item itself (float32, items).
        """


@runtime_checkable
class ScoresPairs(Protocol):
    """A scorer that can score different items for each user in one call."""

    def score_pairs(self, profiles: Profiles, items: Int32) -> Float32:
        """Scores different items for each of B users.

        Args:
            profiles: The profiles of the users.
            items: The indexes of each user's items (int32, B × C).

        Returns:
            The scores, as from `Scorer.score` (float32, B × C).
        """


@runtime_checkable
class Approximates(Protocol):
    """A scorer that can approximate its scores of many items at a much lower cost.

    The approximate scores are used only to find candidates, which are then scored exactly.
    """

    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32 | None:
        """Approximates the scores of items for each of B users.

        Args:
            profiles: The profiles of the users.
            items: The indexes of the items (int32, C); None for the whole catalogue.

        Returns:
            The approximate scores, which the caller may modify (float32, B × C); None if the
            scorer has no approximation.
        """


@runtime_checkable
class ScoresCore(Protocol):
    """A scorer that can score the core of a large catalogue at a much lower cost than all items."""

    def score_core(self, profiles: Profiles) -> tuple[Int32, Float32]:
        """Scores the core of the catalogue, which contains most users' best items.

        Args:
            profiles: The profiles of B users.

        Returns:
            The items of the core, ascending (int32, m), and their scores (float32, B × m).
        """


@runtime_checkable
class FoldsOnRequest(Protocol):
    """A scorer that can drop the data it stores for each known user.

    It then folds in known users whenever they are scored, like visitors. This saves memory and
    storage, but makes scoring slower.
    """

    def without_users(self) -> Scorer:
        """Returns the same scorer without the data of known users, which `save` then omits."""


@runtime_checkable
class WarmsUp(Protocol):
    """A scorer whose first calls are slower than later ones."""

    def warm_up(self) -> None:
        """Makes the slow first calls, so that no request has to."""


def score_pairs(scorer: Scorer, profiles: Profiles, items: Int32) -> Float32:
    """Scores different items for each user; see `ScoresPairs.score_pairs`.

    If the scorer does not implement `ScoresPairs`, it is called for one user at a time.
    """
    if implements(type(scorer), ScoresPairs):
        return cast("ScoresPairs", scorer).score_pairs(profiles, items)
    scores = np.empty(items.shape, dtype=np.float32)
    for row in range(len(profiles)):
        scores[row] = scorer.score(profiles.single(row), items[row])[0]
    return scores


@lru_cache
def implements(scorer: type, protocol: type) -> bool:
    """Returns whether a class of scorers implements a protocol.

    The result is cached, because the check takes longer than scoring a few items.
    """
    return issubclass(scorer, protocol)


@dataclass(frozen=True)
class RatedEvidence:
    """The contributions of a user's rated items to a model's score of one item.

    Attributes:
        items: The indexes of the rated items with the largest absolute contributions, largest
            first (int32, n).
        similarities: The similarity of each to the scored item; 0 if the model has no item
            similarities (float32, n).
        contributions: The contribution of each to the score, in the unit of the model's scores;
            may be negative (float32, n).
        total: The contribution of all rated items, including those not listed in `items`.
        remainder: The part of the score that is not explained by rated items, such as the
            baseline's prediction. The score is `total + remainder`, up to rounding.
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
            contributions: The contribution of each to the score (float32 or float64, n).
            remainder: The part of the score that is not explained by rated items.
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
        contribution: Their contribution to the prediction, in stars; may be negative.
    """

    count: int
    mean_stars: float
    contribution: float


@runtime_checkable
class ExplainsByItems(Protocol):
    """A scorer whose scores are sums over the user's rated items plus a remainder."""

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """Decomposes the score of each item into the contributions of the user's rated items.

        Args:
            profile: The profile of a single user.
            items: The indexes of the scored items (int32, n).
            count: The maximum number of rated items to return for each scored item.

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

        Returns:
            The evidence for each item.
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
