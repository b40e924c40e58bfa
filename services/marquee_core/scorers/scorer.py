"""What every model offers to the servers and to the trainer's evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from marquee_core.arrays import Float32, Int32
from marquee_core.output import Output
from marquee_core.ratings import Profiles, RatingsMatrix
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.popularity import Recency


@dataclass(frozen=True)
class ReleaseData:
    """The part of a release that all its models build on.

    Attributes:
        matrix: The training ratings.
        baseline: The bias baseline fitted on them.
        recency: How often items were rated of late; None where it does not take part.
    """

    matrix: RatingsMatrix
    baseline: Baseline
    recency: Recency | None = None


class Scorer(Protocol):
    """A model ready to score.

    Unknown users and empty profiles are ordinary input: with no ratings, a model of stars answers
    μ + b_i for each item, the baseline's or of its own biases, a model of affinity answers 0.
    """

    @property
    def output(self) -> Output:
        """What the scores are."""

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Scores items for each of B users.

        A user who is not `folded` is answered from the trained representation, any other from
        the profile alone.

        Args:
            profiles: The users.
            items: Item indexes (int32, C); None for the whole catalogue.

        Returns:
            Scores (float32, B × C), not clipped to the rating scale. A user whom the model cannot
            answer has NaN in all places.
        """

    def similarities(self, item: int) -> Float32 | None:
        """The similarity of an item to each item, -1 to 1 (float32, items), 1 to itself.

        None when the model has no item similarities.
        """


@runtime_checkable
class WarmsUp(Protocol):
    """A scorer whose first calls cost more than later ones."""

    def warm_up(self) -> None:
        """Makes the first calls."""


@dataclass(frozen=True)
class RatedEvidence:
    """Rated items that pull an item up or down, most contribution first.

    Attributes:
        items: Item indexes (int32, n).
        similarities: Their similarity to the item (float32, n).
        contributions: What each adds to the prediction, in stars (float32, n).
    """

    items: Int32
    similarities: Float32
    contributions: Float32


@dataclass(frozen=True)
class NeighbourEvidence:
    """Similar users who rated an item.

    Attributes:
        count: How many.
        mean_stars: Their mean rating, weighted by similarity; 0 without any.
        contribution: What they add to the prediction, in stars.
    """

    count: int
    mean_stars: float
    contribution: float


@runtime_checkable
class ExplainsByItems(Protocol):
    """A scorer that tells which rated items speak for an item."""

    def rated_evidence(self, profile: Profiles, items: Int32, count: int) -> list[RatedEvidence]:
        """For each item, the rated items that contribute most, at most `count`.

        Over all rated items the contributions add up to the prediction less the baseline.
        """


@runtime_checkable
class ExplainsByNeighbours(Protocol):
    """A scorer that tells which users speak for an item."""

    def neighbour_evidence(self, profile: Profiles, items: Int32) -> list[NeighbourEvidence]:
        """For each item, what similar users say of it."""


class LoadScorer(Protocol):
    """Reads a model's artifacts."""

    def __call__(self, folder: Path, data: ReleaseData) -> Scorer:
        """Reads the folder.

        Raises:
            ArtifactError: The artifacts are not what they should be.
        """
